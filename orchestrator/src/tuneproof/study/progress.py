"""How a study tells what it does: a stage with a count, again and again."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Stage(Protocol):
    """One stage under way."""

    def advance(self, count: int = 1) -> None:
        """So many more are done."""

    def note(self, text: str) -> None:
        """What happens just now, in a few words."""


class Progress(Protocol):
    """Where stages are shown."""

    def stage(self, name: str, total: int, done: int) -> AbstractContextManager[Stage]:
        """Shows a stage while the context lasts.

        Args:
            total: of its items, those included that are done.
        """

    def say(self, text: str) -> None:
        """A line beside the stages."""
