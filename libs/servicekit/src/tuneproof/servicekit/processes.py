"""Identifies a process across machines, and tells whether it still runs."""

from __future__ import annotations

import os
from pathlib import Path


def this_process() -> str:
    """This process, by a name that no other process of any machine has; empty where unknown."""
    try:
        return f"{_here()}/{os.getpid()}/{_started(os.getpid())}"
    except OSError:
        return ""


def is_running(process: str) -> bool | None:
    """Whether the process that `this_process` named still runs; None when not visible here."""
    here, _, rest = process.rpartition("/")[0].rpartition("/")
    try:
        if not here or here != _here():
            return None
        return _started(int(rest)) == process.rpartition("/")[2]
    except OSError:
        return False


def _here() -> str:
    # Process ids mean the same only within one process namespace of one run of one machine.
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"


def _started(process: int) -> str:
    # The name, in parentheses, may hold anything; the start time is the 20th field after it.
    state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    if state == "Z":
        raise ProcessLookupError(process)
    return fields[18]


def pid_of(process: str) -> int:
    """The process id, in its own namespace, of a process that `this_process` named."""
    return int(process.rsplit("/", 2)[1])
