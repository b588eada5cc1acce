"""Writes a base with an adapter in it.

    python -m tuneproof_trainer.merging ADAPTER BASE OUT DTYPE

Prints one line of JSON: how far the merged model's answers are from those of the base with the
adapter beside it. Exit codes: 0 done, 2 bad input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tuneproof.adapters.fingerprint import mean_difference
from tuneproof.servicekit.errors import InvalidInput, TuneproofError

DTYPES = ("float32", "bfloat16", "float16")


def merge(adapter: Path, base: Path, out: Path, dtype: str) -> dict[str, Any]:
    """Adds an adapter's products to the base's weights, and writes a model that needs no adapter.

    Args:
        out: a folder that does not exist yet.
        dtype: of the weights that are written; the sum is made in float32.

    Returns:
        over the fixed questions, in nats a token: `effect` of the adapter, and `mean_difference`
        and `max_difference` between merged and unmerged; `same_tokens`, the share of positions
        with the same likeliest token.

    Raises:
        InvalidInput: when `out` exists, or the dtype is unknown.
    """
    if dtype not in DTYPES:
        raise InvalidInput(f"dtype is {dtype}, not one of {', '.join(DTYPES)}", field="dtype")
    if out.exists():
        raise InvalidInput(f"{out} exists; name a new folder", field="out")
    import torch  # noqa: PLC0415 - seconds of imports
    from peft import PeftModel  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    from tuneproof_trainer.worker.fingerprint import likeliest, probes_of, reading_of  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(base)
    probes = probes_of(tokenizer)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    beside = PeftModel.from_pretrained(plain, adapter).eval()
    before, tokens = reading_of(beside, probes, "float32"), likeliest(beside, probes)
    # safe_merge: weights that are not finite are refused.
    merged = beside.merge_and_unload(safe_merge=True).to(getattr(torch, dtype))
    after, again = reading_of(merged, probes, "float32"), likeliest(merged, probes)
    merged.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)
    pairs = [
        abs(one - other)
        for row, beside_row in zip(before.adapted, after.adapted, strict=True)
        for one, other in zip(row, beside_row, strict=True)
    ]
    return {
        "folder": str(out),
        "dtype": dtype,
        "effect": before.effect,
        "mean_difference": mean_difference(before.adapted, after.adapted),
        "max_difference": max(pairs),
        "same_tokens": sum(a == b for a, b in zip(tokens, again, strict=True)) / len(tokens),
    }


def main() -> int:
    """The program."""
    if len(sys.argv) != 5:
        print(__doc__, file=sys.stderr)
        return 2
    adapter, base, out = (Path(each) for each in sys.argv[1:4])
    try:
        found = merge(adapter, base, out, sys.argv[4])
    except TuneproofError as error:
        print(json.dumps({"error": error.message}))
        return 2
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
