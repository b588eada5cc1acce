"""What tests need to run programs on this machine: programs that come packed, and free ports."""

from __future__ import annotations

import lzma
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path


def unpack(archive: Path, program: Path) -> None:
    """Makes a program of an xz archive."""
    with lzma.open(archive) as packed, program.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
    program.chmod(0o755)


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Ports on which nobody listens now."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.create_server((host, 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in probes]
