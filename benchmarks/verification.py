"""How fast an adapter is examined before an engine may see it.

    make bench-verify

The adapter has the shape of one for an 8B Llama: rank 16 on all seven linear layers of 32 blocks,
bfloat16, 448 tensors, 84 MB. `gb_per_s` is its size by the median time of `verify`, which reads the
file once for its digest and for values that are not finite; the file is in the page cache.
`hash_gb_per_s` is what one thread of OpenSSL's sha256 does here with the same bytes, for
comparison. The other stages are those of the way from the registry into the cache.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from tuneproof.adapters import Registry, identify_base, verify
from tuneproof.adapters.manifest import MANIFEST_FILE, WEIGHTS_FILE, Manifest
from tuneproof.adapters.shapes import architecture_of
from tuneproof.adapters.tensors import examine, read_header
from tuneproof.adapters.testing import LORA_CONFIG, write_base

BASE = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
}
RANK = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="times that each stage is measured")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as scratch:
        results = _measure(Path(scratch), rounds)
    print(json.dumps({"bench": "verification", "results": results}))


def _measure(root: Path, rounds: int) -> dict[str, Any]:
    base = identify_base(write_base(root / "base"))
    registry = Registry(str(root / "store"))
    ref = registry.commit(_write(root / "made"), name="large", base=base, provenance={})
    folder = registry.fetch(ref, root / "cache")
    weights = folder / WEIGHTS_FILE
    content = weights.read_bytes()
    size = len(content)

    def check() -> None:
        report = verify(folder, base=base, base_config=BASE, max_rank=RANK, expected=ref)
        report.raise_if_bad()

    def fetch() -> None:
        shutil.rmtree(folder)
        registry.fetch(ref, root / "cache")

    seconds = _interleaved(
        {
            "hash": lambda: hashlib.sha256(content).digest(),
            "header": lambda: read_header(weights),
            "examine": lambda: list(examine(weights, read_header(weights))),
            "manifest": lambda: Manifest.parse((folder / MANIFEST_FILE).read_bytes()).digest,
            "verify": check,
            "fetch": fetch,
            "fetch_cached": lambda: registry.fetch(ref, root / "cache"),
        },
        rounds,
    )
    return {
        "gb_per_s": round(size / seconds["verify"] / 1e9, 3),
        "hash_gb_per_s": round(size / seconds["hash"] / 1e9, 3),
        "megabytes": round(size / 1e6, 1),
        "tensors": len(read_header(weights)),
        "cpus": len(os.sched_getaffinity(0)),
        "stages_ms": {stage: round(took * 1000, 1) for stage, took in seconds.items()},
    }


def _interleaved(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, taken in turns, after one round that does not count."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if number:
                took[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in took.items()}


def _write(folder: Path) -> Path:
    """The adapter, as peft would write it. numpy has no bfloat16, so the file is made by hand."""
    folder.mkdir(parents=True)
    header: dict[str, Any] = {}
    place = 0
    for name, shape in _shapes():
        size = 2 * shape[0] * shape[1]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    values = np.random.default_rng(0).normal(scale=0.02, size=place // 2).astype("<f4")
    with (folder / WEIGHTS_FILE).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write((values.view("<u4") >> 16).astype("<u2").tobytes())
    architecture = architecture_of(BASE)
    config = {
        **LORA_CONFIG,
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": sorted(architecture.shapes) if architecture else [],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def _shapes() -> Iterator[tuple[str, tuple[int, int]]]:
    architecture = architecture_of(BASE)
    assert architecture is not None
    for layer in range(architecture.layers):
        for kind, (wide, high) in sorted(architecture.shapes.items()):
            block = "self_attn" if kind[0] in "qkvo" else "mlp"
            module = f"base_model.model.model.layers.{layer}.{block}.{kind}"
            yield f"{module}.lora_A.weight", (RANK, wide)
            yield f"{module}.lora_B.weight", (high, RANK)


if __name__ == "__main__":
    main()
