"""Step: the generator answers, with the base model and with the adapters of the cells."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneproof.sdk import GenerateInput, Generation, GeneratorClient, Sampling
from tuneproof.servicekit.errors import Internal, TuneproofError, Unavailable
from tuneproof.study.services import Services
from tuneproof.study.state.store import Task, task
from tuneproof.study.steps.chain import AnswerWork, Chain
from tuneproof.study.steps.serving import held_at_once, make_room, serve
from tuneproof.study.steps.tally import Piece, Tally
from tuneproof.study.steps.work import Lane, TaskOutcome, persist

"""After this time a generator counts as lost, and the study restarts one of this machine."""
_PREPARED = 8
"""Adapters whose prompts are made at once: those of a whole study may not fit into memory."""
_KEPT = ("dtype", "engine_version", "chat_template_digest")
"""Of the generator's description, for the report."""
_ANSWERED = ["text", "finish_reason", "prompt_tokens", "completion_tokens", "seconds", "served_by"]
"""Of an answer, in the state; the fields of `results.Answer` have the same names."""
Answered = Callable[[AnswerWork, Any, bool], None]
"""Receives an answer with its output, and whether it is new."""


@dataclass
class _Asked:
    """What is asked of one adapter."""

    works: dict[str, list[AnswerWork]]
    """Not answered yet, by key."""
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Answering:
    """The generator's lane. The answers of all cells share one stream, so that the engine is full
    until the last of them.

    Loads as many adapters at a time as a batch of the engine holds, so that none evicts another.
    When one has all its answers, the next one is loaded while the others go on.

    Args:
        tally_of: the stage of an answer.
        answered: is told of each answer as soon as it is there.
        note: says what happens at the moment.
        adapters: how many the study has.
        in_flight: most requests at once that the generator has and has not answered.
    """

    def __init__(
        self,
        chain: Chain,
        services: Services,
        tally_of: Callable[[AnswerWork], Tally],
        answered: Answered,
        note: Callable[[str], None],
        *,
        adapters: int,
        in_flight: int,
    ) -> None:
        self._state = chain.state
        self._pool_task = pool_task(chain, chain.plan.baseline.model)
        self._services = services
        self._tally_of = tally_of
        self._answered = answered
        self._note = note
        self._adapters = adapters
        self._in_flight = in_flight
        self._lane = Lane(self._ask, chain.state, recover=services.recover, ended=self._ended)
        self._prepared = asyncio.Semaphore(_PREPARED)
        self._described = False
        self._places: asyncio.Semaphore | None = None
        self._turns = itertools.count()
        self._asked: dict[str, _Asked] = {}
        """By adapter."""

    async def run(self) -> None:
        """Answers until it is closed."""
        await self._lane.run()

    def close(self) -> None:
        """Every answer was asked for."""
        self._lane.close()

    async def answer(self, adapter: str, works: Callable[[], Sequence[AnswerWork]]) -> None:
        """Has an adapter, or the base model, answer; returns when each answer has its outcome.

        Args:
            adapter: empty for the base model.
            works: everything that is asked of it.
        """
        async with self._prepared:
            missing: dict[str, list[AnswerWork]] = {}
            for work in works():
                missing.setdefault(work.task.key, []).append(work)
            for key, output in self._state.get_many(missing).items():
                for work in missing.pop(key):
                    self._answered(work, output, False)
            if missing and not adapter:
                await self._through_lane(adapter, missing)
            elif missing:
                async with await self._place():
                    await self._with_adapter(adapter, missing)

    async def _with_adapter(self, adapter: str, missing: dict[str, list[AnswerWork]]) -> None:
        async def load() -> None:
            await serve(await self._generator(), adapter, self._note)

        try:
            await persist(load, recover=self._services.recover)
        except Unavailable:
            raise
        except TuneproofError as error:
            for works in missing.values():
                self._piece(works).fail(self._state, error.message)
            return
        await self._through_lane(adapter, missing)
        await make_room(self._services, adapter, self._adapters, self._note)

    async def _through_lane(self, adapter: str, missing: dict[str, list[AnswerWork]]) -> None:
        asked = self._asked[adapter] = _Asked(missing)
        turn = next(self._turns)
        for works in missing.values():
            given = works[0].task
            # Prompts that begin alike stand together, for the engine's prefix cache.
            prompt = tuple(message["content"] for message in given.inputs["messages"])
            for work in works:
                self._lane.add(given, self._tally_of(work), rank=(turn, prompt))
        await asked.over.wait()
        del self._asked[adapter]

    def _ended(self, done: Task, output: Any | None) -> None:
        asked = self._asked[str(done.inputs["adapter"])]
        works = asked.works.pop(done.key)
        if output is not None:
            for work in works:
                self._answered(work, output, True)
        if not asked.works:
            asked.over.set()

    async def _ask(self, tasks: AsyncIterator[Task]) -> AsyncGenerator[TaskOutcome, None]:
        generator = await self._generator()
        # A generator that was lost may still be loading them.
        loading = (serve(generator, adapter, self._note) for adapter in self._asked)
        for failure in await asyncio.gather(*loading, return_exceptions=True):
            # Another failure than this is one of its adapter, whose requests will tell.
            if isinstance(failure, Unavailable):
                raise failure
        asked: dict[str, str] = {}

        async def inputs() -> AsyncIterator[tuple[str, GenerateInput]]:
            async for each in tasks:
                given = each.inputs
                asked[each.key] = given["adapter"]
                sampling = Sampling(max_tokens=given["sampling"]["max_tokens"], temperature=0.0)
                yield each.key, GenerateInput(given["messages"], given["adapter"], sampling)

        async for key, outcome in generator.generate_many(inputs(), in_flight=self._in_flight):
            adapter = asked.pop(key)
            if isinstance(outcome, TuneproofError):
                yield key, outcome
            else:
                yield key, _output(outcome, adapter)

    async def _generator(self) -> GeneratorClient:
        generator = await self._services.generator()
        pool = self._services.pool
        if pool is not None and not self._described:
            self._described = True
            self._state.put(self._pool_task, {name: getattr(pool, name) for name in _KEPT})
        return generator

    async def _place(self) -> asyncio.Semaphore:
        if self._places is None:
            await persist(self._generator, recover=self._services.recover)
            self._places = self._places or asyncio.Semaphore(held_at_once(self._services))
        return self._places

    def _piece(self, works: Sequence[AnswerWork]) -> Piece:
        piece = Piece(works[0].task)
        for work in works:
            piece.add(self._tally_of(work), 1)
        return piece


def pool_task(chain: Chain, model: str) -> Task:
    """The task under which the state keeps what a model's generator or endpoint says of itself."""
    return task("pool", {"base": chain.identities.of(model).content})


def _output(generation: Generation, adapter: str) -> object:
    if generation.adapter_ref != adapter:
        return Internal(
            f"asked {adapter or 'the base model'}, but {generation.served_by} answered:"
            " the answer does not count"
        )
    return {name: getattr(generation, name) for name in _ANSWERED}
