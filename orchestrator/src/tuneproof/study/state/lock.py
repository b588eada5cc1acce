"""One study at a time in a state folder."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from tuneproof.servicekit.errors import WrongState
from tuneproof.servicekit.locks import Holder, holder_of, locked

_FILE = "state.lock"


class StateHeld(WrongState):
    """Another process works on this state."""


def exclusive(folder: Path) -> AbstractContextManager[None]:
    """Holds the state folder.

    Raises:
        StateHeld: another process holds it; the message names its id and since when.
    """
    return locked(
        folder / _FILE,
        lambda holder: StateHeld(
            f"the state in {folder} is in use by {holder}: wait for it, end it,"
            " or take another folder with --state"
        ),
    )


def holder(folder: Path) -> Holder | None:
    """The process that works on a state folder; None while none does."""
    return holder_of(folder / _FILE)
