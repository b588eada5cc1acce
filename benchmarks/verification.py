"""How fast an adapter is examined before an engine may see it, and how soon it is served.

    make bench-verify

The adapter has the shape of one for an 8B Llama: rank 16 on all seven linear layers of 32 blocks,
bfloat16, 448 tensors, 84 MB. `gb_per_s` is its size by the median time of `verify`, which reads the
file once for its digest and for values that are not finite; the file is in the page cache.
`hash_gb_per_s` is what one thread of OpenSSL's sha256 does here with the same bytes, for
comparison. The other stages are those of the way from the registry into the cache.

`ready_ms` is the whole way, in the generator as a process of its own: adapters are declared, waited
for and removed, one after the other. `whole` is what the client sees from its declaration until it
hears READY, the others are what the service tells of its stages. A CPU does not serve 8B, so the
base, with random weights, is a quarter of it in width and depth, and the rank 16 times as high: the
adapters have the same 84 MB, in 112 tensors. Each has content of its own, so that none is in the
service's cache. The first after the service's start takes longer than the others; it counts as one
of them, and standard error tells each. All figures are medians.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from service import generator, generator_flags

from tuneproof.adapters import Registry, identify_base, verify
from tuneproof.adapters.manifest import MANIFEST_FILE, WEIGHTS_FILE, Manifest
from tuneproof.adapters.shapes import architecture_of
from tuneproof.adapters.tensors import examine, read_header
from tuneproof.adapters.testing import LORA_CONFIG, write_base
from tuneproof.sdk import GeneratorClient

BASE = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
}
RANK = 16
SERVED_BASE = {
    "model_type": "llama",
    "hidden_size": 1024,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 3584,
    "num_hidden_layers": 8,
}
SERVED_RANK = 256
TOKENIZER = Path(__file__).parent.parent / "demo" / "telecom-reader"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="times that each stage is measured")
    parser.add_argument("--adapters", type=int, default=5, help="adapters that are declared")
    options = parser.parse_args()
    if min(options.rounds, options.adapters) < 1:
        parser.error("--rounds and --adapters are at least 1")
    with tempfile.TemporaryDirectory() as scratch:
        results = _measure(Path(scratch) / "examined", options.rounds)
        results |= _serve(Path(scratch) / "served", options.adapters)
    print(json.dumps({"bench": "verification", "results": results}))


def _measure(root: Path, rounds: int) -> dict[str, Any]:
    base = identify_base(write_base(root / "base"))
    registry = Registry(str(root / "store"))
    made = _write(root / "made", BASE, RANK)
    ref = registry.commit(made, name="large", base=base, provenance={})
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


def _serve(root: Path, count: int) -> dict[str, Any]:
    print("making the base and its adapters", file=sys.stderr)
    model = _write_model(root / "model")
    base, registry = identify_base(model), Registry(str(root / "artifacts"))
    refs = []
    for number in range(count):
        made = _write(root / "made", SERVED_BASE, SERVED_RANK, seed=number)
        size = (made / WEIGHTS_FILE).stat().st_size
        name = f"large-{number}"
        refs.append(str(registry.commit(made, name=name, base=base, provenance={})))
        shutil.rmtree(made)
    print("starting the generator", file=sys.stderr)
    flags = generator_flags(
        root, model=model, max_lora_rank=SERVED_RANK, max_loras=2, max_cpu_loras=4
    )
    with generator(flags) as served:
        ways = asyncio.run(_declare(served["grpc"], refs))
    return {
        "ready_ms": {
            stage: round(median(way[stage] for way in ways) * 1000, 1) for stage in ways[0]
        },
        "ready_megabytes": round(size / 1e6, 1),
    }


async def _declare(target: str, refs: Sequence[str]) -> list[dict[str, float]]:
    """Seconds of each adapter's stages and of the whole."""
    ways = []
    async with GeneratorClient(target) as client:
        await client.pool()  # Connects.
        for ref in refs:
            start = time.perf_counter()
            await client.declare(ref)
            ready = await client.wait_ready(ref)
            whole = time.perf_counter() - start
            ways.append({**ready.stage_seconds, "whole": whole})
            await client.remove(ref)
            told = ", ".join(f"{stage} {took * 1000:.1f}" for stage, took in ways[-1].items())
            print(f"{ref.partition('@')[0]}: {told} ms", file=sys.stderr)
    return ways


def _write_model(folder: Path) -> Path:
    """A base with random weights and the demo's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    vocabulary = json.loads((TOKENIZER / "tokenizer.json").read_text())["model"]["vocab"]
    config = LlamaConfig(
        **{key: value for key, value in SERVED_BASE.items() if key != "model_type"},
        vocab_size=len(vocabulary),
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TOKENIZER / name, folder / name)
    return folder


def _write(folder: Path, base: Mapping[str, Any], rank: int, *, seed: int = 0) -> Path:
    """An adapter, as peft would write it. numpy has no bfloat16, so the file is made by hand."""
    folder.mkdir(parents=True)
    header: dict[str, Any] = {}
    place = 0
    for name, shape in _shapes(base, rank):
        size = 2 * shape[0] * shape[1]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    values = np.random.default_rng(seed).normal(scale=0.02, size=place // 2).astype("<f4")
    with (folder / WEIGHTS_FILE).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write((values.view("<u4") >> 16).astype("<u2").tobytes())
    architecture = architecture_of(dict(base))
    config = {
        **LORA_CONFIG,
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": sorted(architecture.shapes) if architecture else [],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def _shapes(base: Mapping[str, Any], rank: int) -> Iterator[tuple[str, tuple[int, int]]]:
    architecture = architecture_of(dict(base))
    assert architecture is not None
    for layer in range(architecture.layers):
        for kind, (wide, high) in sorted(architecture.shapes.items()):
            block = "self_attn" if kind[0] in "qkvo" else "mlp"
            module = f"base_model.model.model.layers.{layer}.{block}.{kind}"
            yield f"{module}.lora_A.weight", (rank, wide)
            yield f"{module}.lora_B.weight", (high, rank)


if __name__ == "__main__":
    main()
