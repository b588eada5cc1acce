"""What the queue asks of a place where workers run."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Protocol

from tuneproof_trainer.record import (
    EXIT_CODES,
    Heartbeat,
    Job,
    RunStatus,
    WorkerEnding,
    WorkerResult,
)

_ENDINGS = {code: ending for ending, code in EXIT_CODES.items()}


@dataclass
class Attempt:
    """One attempt at a run."""

    status: RunStatus
    """That the run got when the attempt began."""
    job: Job | None
    """None when another trainer started the worker."""
    saves: bool = True
    """Whether a worker that is stopped saves a checkpoint first."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.status.id

    @property
    def number(self) -> int:
        """Of the attempt."""
        return self.status.attempt


class Executor(Protocol):
    """Runs an attempt's worker to its end."""

    @property
    def name(self) -> str:
        """`local` or `kubernetes`."""

    @property
    def outlives_service(self) -> bool:
        """Whether workers go on when the service that started them stops."""

    async def execute(self, attempt: Attempt) -> WorkerResult:
        """Starts the attempt's worker and waits for its end.

        When the call is cancelled, it stops the worker and returns when that has ended, or when the
        cluster was told to end it. A worker that outlives the service stays if it would save.

        Returns:
            how it ended; RETRY when it was killed or could not be started.
        """

    async def follow(self, attempt: Attempt) -> WorkerResult:
        """Like `execute`, for a worker that another process started."""

    def can_follow(self, status: RunStatus, heartbeat: Heartbeat | None) -> bool:
        """Whether this executor may look after the attempt's worker. Several trainers may follow
        one Job; no two follow one process."""

    def waits_for(self, attempt: Attempt) -> str | None:
        """What keeps a worker that gave no sign of life yet from its place, in words that may be
        empty; None where it begins at once, so that its silence counts."""


def by_exit_code(code: int, words: str) -> WorkerResult:
    """The result of a worker that wrote none.

    Args:
        code: above 0; a worker that wrote no result is never done.
        words: the end of its log.
    """
    ending = _ENDINGS.get(code, WorkerEnding.BAD_INPUT)
    if ending is WorkerEnding.DONE:
        ending = WorkerEnding.RETRY
    reason = f"the worker ended with exit code {code}{_said(words)}"
    return WorkerResult(ending=ending, reason=reason)


def by_signal(number: int, words: str = "") -> WorkerResult:
    """The result of a worker that a signal ended before it wrote one.

    Args:
        words: the end of its log.
    """
    reason = f"the worker was ended by {signal.Signals(number).name}{_said(words)}"
    return WorkerResult(ending=WorkerEnding.RETRY, reason=reason)


def _said(words: str) -> str:
    return f"; its log ends with: {words}" if words else ""
