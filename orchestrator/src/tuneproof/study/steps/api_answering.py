"""Step: an API model's answers to the prompts of the baseline."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from functools import partial

from tuneproof.servicekit.errors import DeadlineExceeded, TuneproofError, Unavailable
from tuneproof.study.api_models import ApiModel
from tuneproof.study.state.store import Task
from tuneproof.study.steps.answering import pool_task
from tuneproof.study.steps.chain import Chain
from tuneproof.study.steps.tally import Tally
from tuneproof.study.steps.work import Lane, TaskOutcome


class ApiAnswers:
    """Asks an API model for every answer that is missing. A set-up that is broken fails them all,
    each with the reason, and nothing else.

    Args:
        chain: of that model alone.
        tally: of the stage.
        environment: holds its key; this process's own when None.
    """

    def __init__(
        self, chain: Chain, tally: Tally, environment: Mapping[str, str] | None = None
    ) -> None:
        self._chain = chain
        self._tally = tally
        self._name = chain.plan.baseline.model
        self._spec = chain.plan.spec.api(self._name)
        known = os.environ if environment is None else environment
        self._key = known.get(self._spec.key or "", "")

    async def run(self) -> None:
        """Asks until every answer has its outcome."""
        state = self._chain.state
        tasks = [work.task for work in self._chain.answers()]
        missing = state.without_output(task.key for task in tasks)
        if not missing:
            return
        async with ApiModel(self._spec, self._key) as api:
            lane = Lane(partial(_ask, api), state, recover=_nothing)
            for task in tasks:
                if task.key in missing:
                    lane.add(task, self._tally)
            lane.close()
            await lane.run()
            told = {"refused": list(api.refused)}
            state.put(pool_task(self._chain, self._name), told)


async def _nothing() -> None:
    """The endpoint is not ours to bring back."""


async def _ask(api: ApiModel, tasks: AsyncIterator[Task]) -> AsyncGenerator[TaskOutcome, None]:
    """Outcomes as they come; the model bounds how many are asked at once."""
    found: asyncio.Queue[TaskOutcome | None] = asyncio.Queue()

    async def one(task: Task) -> None:
        found.put_nowait(await _one(api, task))

    async def feed() -> None:
        try:
            async with asyncio.TaskGroup() as asking:
                async for task in tasks:
                    asking.create_task(one(task))
        finally:
            found.put_nowait(None)

    feeding = asyncio.create_task(feed())
    try:
        while (outcome := await found.get()) is not None:
            yield outcome
        await feeding
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)


async def _one(api: ApiModel, task: Task) -> TaskOutcome:
    try:
        answer = await api.answer(task.inputs["messages"], task.inputs["sampling"]["max_tokens"])
    except Unavailable as error:  # Its time is over; only the next run tries again.
        return task.key, DeadlineExceeded(error.message)
    except TuneproofError as error:
        return task.key, error
    return task.key, answer
