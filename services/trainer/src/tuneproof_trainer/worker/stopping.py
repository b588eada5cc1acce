"""How a worker is told to stop.

SIGTERM  save a checkpoint where there is something to save, then end
SIGINT   end now; the run is cancelled, or another worker has it
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StoppedError(BaseException):
    """The worker ends. A BaseException, so that no `except Exception` catches it."""


class Stop:
    """What this process was told."""

    def __init__(self) -> None:
        self.requested = False
        """Whether SIGTERM came while something could be saved."""
        self._saves = False

    def install(self) -> None:
        """Hears the signals from now on."""
        signal.signal(signal.SIGTERM, self._finish)
        signal.signal(signal.SIGINT, self._end)

    def ignore(self) -> None:
        """Hears no more: what is left is done to its end."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Within the block SIGTERM sets `requested`; the block saves, and ends soon."""
        self._saves = True
        try:
            yield
        finally:
            self._saves = False

    def _finish(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        if not self._saves:
            raise StoppedError

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        raise StoppedError
