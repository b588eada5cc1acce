"""Files that one process holds at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tuneproof.servicekit.errors import TuneproofError


@dataclass(frozen=True)
class Holder:
    """The process that holds a file."""

    pid: int
    """0 when the file does not tell."""
    since: str = ""
    """ISO 8601, UTC."""

    def __str__(self) -> str:
        return f"process {self.pid}, since {self.since}" if self.pid else "another process"


@contextmanager
def locked(path: Path, refuse: Callable[[Holder], TuneproofError]) -> Iterator[None]:
    """Holds a file; the kernel lets go when the process ends, however it ends.

    Args:
        refuse: makes the error to raise when another process holds it.

    Raises:
        TuneproofError: what `refuse` made.
        OSError: when the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refuse(_read(path)) from None
        mine = Holder(os.getpid(), datetime.now(UTC).isoformat(timespec="seconds"))
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(asdict(mine)).encode(), 0)
        yield
    finally:
        os.close(handle)


def holder_of(path: Path) -> Holder | None:
    """Which process holds a file; None when none does."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(path)
    finally:
        os.close(handle)
    return None


def _read(path: Path) -> Holder:
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return Holder(0)
