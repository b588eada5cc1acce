"""Which workers have fallen silent.

A reader counts a lease from the moment at which it saw the heartbeat change, by its own steady
clock: the clocks of two machines need not agree. Time in which the store did not answer does not
count, because no worker could renew its heartbeat in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tuneproof.servicekit.processes import is_running
from tuneproof_trainer.record import Heartbeat, RunStatus


@dataclass
class _Seen:
    attempt: int
    sequence: int
    at: float


class Leases:
    """What one trainer has seen of the heartbeats of all runs.

    Args:
        seconds: how long a worker counts as alive after its last heartbeat was seen.
        clock: steady, in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    def obstacle(self, status: RunStatus, heartbeat: Heartbeat | None) -> str:
        """Why a running attempt is lost, in words; empty while it may be alive.

        Args:
            heartbeat: of its worker, as read now; None before the first.
        """
        if heartbeat and is_running(heartbeat.process) is False:
            return "the worker was killed"
        return self.silence(status, heartbeat)

    def silence(self, status: RunStatus, heartbeat: Heartbeat | None) -> str:
        """Why a running attempt counts as lost although its process may be there; else empty."""
        sequence = heartbeat.sequence if heartbeat else 0
        seen = self._seen.get(status.id)
        if seen is None or (seen.attempt, seen.sequence) != (status.attempt, sequence):
            self._seen[status.id] = _Seen(status.attempt, sequence, self._clock())
            return ""
        if self._clock() - seen.at <= self.seconds:
            return ""
        return f"the worker gave no sign of life for {self.seconds:g} seconds"

    def store_was_away(self) -> None:
        """Begins every lease anew: the store answers again."""
        for seen in self._seen.values():
            seen.at = self._clock()

    def keep(self, run_ids: Iterable[str]) -> None:
        """Forgets all runs but these."""
        kept = set(run_ids)
        self._seen = {run_id: seen for run_id, seen in self._seen.items() if run_id in kept}
