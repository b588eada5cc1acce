"""Servers as processes of their own, for benchmarks: the generator, and what it is held against."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

_START_SECONDS = 180.0


def generator_flags(scratch: Path, **more: Any) -> dict[str, Any]:
    """Settings of a generator that keeps everything in a folder and computes on one core.

    Args:
        more: of its settings, by their names.
    """
    return {
        "artifacts": str(scratch / "artifacts"),
        "cache_dir": scratch / "cache",
        "announce_file": scratch / "announce.json",
        "threads": 1,
        **more,
    }


@contextlib.contextmanager
def generator(flags: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Serves by these settings; gives what it announces: `grpc`, `openai`, `pid` …"""
    announce: Path = flags["announce_file"]
    announce.unlink(missing_ok=True)
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    command = [sys.executable, "-m", "tuneproof_generator", *arguments]
    with server(command, announce.with_name("generator.log"), announce.exists):
        yield json.loads(announce.read_text())


@contextlib.contextmanager
def server(command: Sequence[str], log: Path, is_there: Callable[[], bool]) -> Iterator[int]:
    """A server from when `is_there` to the end of the context; its process id."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not is_there():
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{log.stem} does not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(60)
