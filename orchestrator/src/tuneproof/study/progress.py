"""How a study shows its progress: stages, each with a count."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Stage(Protocol):
    """One stage under way."""

    def advance(self, count: int = 1) -> None:
        """Counts items that are done."""

    def note(self, text: str) -> None:
        """What happens at the moment, in a few words."""


class Progress(Protocol):
    """Where stages are shown."""

    def stage(self, name: str, total: int, done: int) -> AbstractContextManager[Stage]:
        """Shows a stage while the context lasts.

        Args:
            total: number of its items, the `done` ones included.
        """

    def say(self, text: str) -> None:
        """Shows a line above the stages."""
