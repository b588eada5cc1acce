"""The generator as a process of its own, for benchmarks."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_START_SECONDS = 180.0


@contextlib.contextmanager
def generator(model: Path, scratch: Path, *, rank: int, slots: int, places: int) -> Iterator[str]:
    """Serves the registry in `scratch / "artifacts"`; its gRPC address.

    Args:
        rank: the largest of an adapter.
        slots: adapters in one batch.
        places: adapters in host memory.
    """
    announce, log = scratch / "announce.json", scratch / "generator.log"
    announce.unlink(missing_ok=True)
    flags = {
        "model": model,
        "artifacts": scratch / "artifacts",
        "cache-dir": scratch / "cache",
        "announce-file": announce,
        "threads": 1,
        "max-lora-rank": rank,
        "max-loras": slots,
        "max-cpu-loras": places,
        "cpu-cache-mib": 512,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tuneproof_generator"),
                *(f"--{name}={value}" for name, value in flags.items()),
            ],
            stdout=output,
            stderr=output,
            env={**os.environ, "VLLM_NO_USAGE_STATS": "1"},
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not announce.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the generator does not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.1)
        yield str(json.loads(announce.read_text())["grpc"])
    finally:
        process.terminate()
        process.wait(60)
