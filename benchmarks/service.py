"""Servers as processes of their own, for benchmarks: our services, and what they compete with."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WEAVIATE = Path(os.environ.get("TUNEPROOF_TOOLS", "")) / "weaviate" / "weaviate.sh"
"""Starts and stops a Weaviate server; the file is missing without TUNEPROOF_TOOLS."""

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
def retriever(folder: Path, *flags: str) -> Iterator[dict[str, Any]]:
    """Our retriever, which keeps no vectors of queries; gives what it announces."""
    announce = folder / "retriever.json"
    announce.unlink(missing_ok=True)
    command = [
        *(sys.executable, "-m", "tuneproof_retriever", "--bind=127.0.0.1:0"),
        *("--cached-queries=0", f"--announce-file={announce}", *flags),
    ]
    with server(command, folder / "retriever.log", announce.exists):
        yield json.loads(announce.read_text())


@dataclass(frozen=True)
class Weaviate:
    """A Weaviate server of this machine."""

    folder: Path
    http_port: int
    grpc_port: int

    @property
    def flags(self) -> tuple[str, ...]:
        """The retriever's flags for it."""
        return (
            "--store=weaviate",
            f"--weaviate-url=http://127.0.0.1:{self.http_port}",
            f"--weaviate-grpc=127.0.0.1:{self.grpc_port}",
        )

    @property
    def pid(self) -> int:
        return int((self.folder / "weaviate.pid").read_text())


@contextlib.contextmanager
def weaviate(folder: Path) -> Iterator[Weaviate]:
    """A server with its data in a new folder."""
    http, grpc = _free_ports()
    folder.mkdir()
    command = [WEAVIATE, "start", folder, str(http), str(grpc)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    try:
        yield Weaviate(folder, http, grpc)
    finally:
        subprocess.run([WEAVIATE, "stop", folder], check=True, stdout=sys.stderr)


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


def _free_ports() -> tuple[int, int]:
    # Weaviate takes others too, 10,000 above its first.
    for port in random.sample(range(20_000, 50_000), 100):
        with socket.socket() as one, socket.socket() as other, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 1))
            return port, port + 1
    sys.exit("no free ports")


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
