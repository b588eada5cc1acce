"""One study at a time in a state folder."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tuneproof.servicekit.errors import WrongState


class StateHeld(WrongState):
    """Another process works on this state."""


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Holds the state folder; the kernel lets go when the process ends, however it ends.

    Raises:
        StateHeld: another process holds it; the message names its id and since when.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "state.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateHeld(_explain(path)) from None
        holder = {"pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(holder).encode(), 0)
        yield
    finally:
        os.close(handle)


def _explain(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        who = f"process {holder['pid']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"
    return (
        f"the state in {path.parent} is in use by {who}: wait for it, end it,"
        " or take another folder with --state"
    )
