"""The device that a trainer's runs get, found without torch."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

_MIB = 1 << 20
_PATIENCE_SECONDS = 20.0


@dataclass(frozen=True)
class Device:
    """What one process of a training computes on."""

    on_gpu: bool = False
    memory_bytes: int = 0
    """Of one device; 0: not known."""
    count: int = 1
    """Devices that share a training."""
    name: str = "cpu"


CPU = Device()


def find_device(wanted: str, memory_gib: float = 0.0, count: int = 1) -> Device:
    """The device of a machine, as a worker will see it.

    Args:
        wanted: auto, cpu or cuda.
        memory_gib: memory of a GPU; 0: what `nvidia-smi` says of the smallest.
        count: how many share a training.
    """
    cpu = Device(count=count)
    if wanted == "cpu":
        return cpu
    found = _smallest_gpu()
    if found is None and wanted == "auto" and not memory_gib:
        return cpu
    name, memory = found or ("cuda", 0)
    known = int(memory_gib * 1024 * _MIB) or memory
    return Device(on_gpu=True, memory_bytes=known, count=count, name=name)


def _smallest_gpu() -> tuple[str, int] | None:
    """Name and bytes; None where the driver's tool is missing or shows none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=memory.total,name", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            query, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_gpus(done.stdout)


def parse_gpus(listed: str) -> tuple[str, int] | None:
    """Name and bytes of the smallest GPU that `nvidia-smi` lists; None without one."""
    found: list[tuple[int, str]] = []
    for line in listed.splitlines():
        mebibytes, _, name = line.partition(",")
        if mebibytes.strip().isdigit():
            found.append((int(mebibytes) * _MIB, name.strip()))
    if not found:
        return None
    memory, name = min(found)
    return name, memory
