"""Doing what is missing: asks a service, keeps each answer, asks again for the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from tuneproof.servicekit.errors import TuneproofError, Unavailable
from tuneproof.servicekit.retries import Retries, may_pass
from tuneproof.study.progress import Progress, Stage
from tuneproof.study.services import Services
from tuneproof.study.state.store import State, Task

TaskOutcome = tuple[str, Any | TuneproofError]
"""A task's key with its output (JSON), or why there is none."""
Ask = Callable[[Sequence[Task]], AsyncIterator[TaskOutcome]]
_RETRIES = Retries(
    first=1.0, longest=8.0, attempts=4, passing=lambda error: isinstance(error, Unavailable)
)


async def complete_stage(
    name: str,
    tasks: Sequence[Task],
    ask: Ask,
    *,
    state: State,
    services: Services,
    progress: Progress,
) -> None:
    """Shows a stage while it asks for the tasks without an output; see `complete`."""
    missing = state.missing(tasks)
    if missing:
        distinct = len({each.key for each in tasks})
        with progress.stage(name, distinct, distinct - len(missing)) as stage:
            await complete(missing, ask, state=state, stage=stage, recover=services.recover)


async def complete(
    tasks: Sequence[Task],
    ask: Ask,
    *,
    state: State,
    stage: Stage,
    recover: Callable[[], Awaitable[None]],
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Asks for every task that has no output, and stores each output when it comes.

    Asks again for what a broken stream left out, and for items whose failure may pass. A task
    that fails for good is noted and ends nothing else.

    Args:
        recover: brings back a service that was lost.
        pause: waits a number of seconds before another try.

    Raises:
        Unavailable: the service was lost several times in a row without any progress.
    """
    attempt = 0
    while waiting := state.missing(tasks):
        attempt += 1
        lost: Unavailable | None = None
        try:
            if not await _once(waiting, ask, state, stage):
                return
        except Unavailable as error:
            lost = error
        if len(state.missing(tasks)) < len(waiting):
            attempt = 1
        elif attempt == _RETRIES.attempts:
            if lost is not None:
                raise lost
            return
        if lost is not None:
            stage.note("a service was lost; waiting for it")
        await pause(_RETRIES.pause_of(attempt, lost))
        if lost is not None:
            await recover()


async def persist(
    step: Callable[[], Awaitable[object]],
    *,
    recover: Callable[[], Awaitable[None]],
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Does a step that can begin again, until no service is lost on the way.

    Raises:
        Unavailable: services were lost several times in a row.
    """
    await _RETRIES.call(step, sleep=pause, before_again=recover)


async def _once(waiting: Sequence[Task], ask: Ask, state: State, stage: Stage) -> bool:
    """One pass; whether another one may help."""
    by_key = {each.key: each for each in waiting}
    again = False
    async for key, outcome in ask(waiting):
        if isinstance(outcome, TuneproofError):
            state.fail(by_key[key], outcome.message)
            again = again or may_pass(outcome)
        else:
            state.put(by_key[key], outcome)
            stage.advance()
    return again
