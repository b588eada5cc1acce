"""Files that one process holds at a time.

    locked     holds a file while a block runs, and notes its holder in the file
    holder_of  which process holds a file
    FileLock   the bare lock, for holders that hand it to a child process

All are flock(2): the kernel lets go when the last process that was given the open file has ended,
however it ended. They need a local disk.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

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


class FileLock:
    """An open file that can be locked; closing it lets go. A context manager.

    A child process that is given the file (`pass_fds`) holds the lock too, from its first moment
    on and until it ends.

    Raises:
        OSError: when the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The open file's number."""
        return self._handle

    def take(self) -> bool:
        """Locks the file, without waiting; False when another process holds it."""
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def write(self, text: bytes) -> None:
        """Replaces the file's content."""
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, text, 0)

    def close(self) -> None:
        """Lets go, unless a child process was given the file."""
        os.close(self._handle)


@contextmanager
def locked(path: Path, refuse: Callable[[Holder], TuneproofError]) -> Iterator[None]:
    """Holds a file while the block runs. Its folder is made where it is missing.

    Args:
        refuse: makes the error to raise when another process holds it.

    Raises:
        TuneproofError: what `refuse` made.
        OSError: when the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path) as lock:
        if not lock.take():
            raise refuse(_read(path))
        mine = Holder(os.getpid(), datetime.now(UTC).isoformat(timespec="seconds"))
        lock.write(json.dumps(asdict(mine)).encode())
        yield


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
