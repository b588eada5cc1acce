"""Completions of one prompt by one request (`n` of OpenAI's API).

OpenAI charges for its prompt once, and there is less to send and to answer everywhere.

What is asked for at one moment, and differs by nothing but seeds that follow each other, becomes
one request. vLLM adds a choice's index to the request's seed: its choices are what as many requests
would have got.

Not every endpoint can. One that gives fewer choices than asked for is asked for the others one by
one, and so for all from then on; one that refuses likewise, once it has answered a request for one.
So is one whose choices are copies of each other: the first that are all alike are compared with a
completion that was asked for alone. Ten copies are no repeats.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from tuneproof.servicekit.digests import canonical_json
from tuneproof_judge.endpoint import OpenAIEndpoint, parameters
from tuneproof_judge.grade import Usage
from tuneproof_judge.layer import Layer
from tuneproof_judge.replies import CallFailed, ChoicesRefused, Completion

_DOUBTS = 3
"""How often choices that are all alike are looked into: a judge may be sure."""

_log = structlog.get_logger(__name__)

_Found = Completion | BaseException


class ChoicesEndpoint(Layer[OpenAIEndpoint]):
    """A `ChatEndpoint` that asks another one for several completions at once.

    Args:
        most: choices of one request.
    """

    def __init__(self, endpoint: OpenAIEndpoint, most: int) -> None:
        super().__init__(endpoint)
        self._most = most
        self._doubts = _DOUBTS
        self._gathering: dict[Hashable, _Group] = {}

    async def _completed(self, asked: Mapping[str, Any], deadline: float | None) -> Completion:
        seed, alike = asked["seed"], asked["temperature"] == 0
        key = (deadline, *(_hashable(asked[name]) for name in sorted(asked) if name != "seed"))
        group = self._gathering.get(key)
        # At temperature 0 all choices are one; vLLM refuses to make them.
        if self._most == 1 or alike or (group is not None and seed in group.waiting):
            return (await self._endpoint.choices(parameters(**asked), 1, deadline))[0]
        if group is None:
            group = self._gathering[key] = _Group(partial(self._gathering.pop, key, None))
            group.work = asyncio.create_task(self._answer(group, parameters(**asked), deadline))
        return await group.wait(seed)

    async def _answer(
        self, group: _Group, asked: Mapping[str, Any], deadline: float | None
    ) -> None:
        size = 0
        while size < len(group.waiting) < self._most:
            size = len(group.waiting)
            await asyncio.sleep(0)
        group.close()

        async def one(seeds: Sequence[int]) -> None:
            (found,) = await asyncio.gather(
                self._ask(asked, seeds, deadline), return_exceptions=True
            )
            each_found = [found] * len(seeds) if isinstance(found, BaseException) else found
            for seed, each in zip(seeds, each_found, strict=True):
                group.answer(seed, each)

        await asyncio.gather(*(one(seeds) for seeds in _runs(group.wanted, self._most)))

    async def _ask(
        self, asked: Mapping[str, Any], seeds: Sequence[int], deadline: float | None
    ) -> list[_Found]:
        """What became of each."""
        found: list[_Found] = []
        try:
            found += await self._first(asked, seeds, deadline)
        except CallFailed as failed:
            return [failed, *(failed.for_another() for _ in seeds[1:])]
        others = (
            self._endpoint.choices({**asked, "seed": seed}, 1, deadline)
            for seed in seeds[len(found) :]
        )
        for each in await asyncio.gather(*others, return_exceptions=True):
            found.append(each if isinstance(each, BaseException) else each[0])
        return found

    async def _first(
        self, asked: Mapping[str, Any], seeds: Sequence[int], deadline: float | None
    ) -> list[Completion]:
        """All of them, or as many as the endpoint gives."""
        asked, count = {**asked, "seed": seeds[0]}, min(self._most, len(seeds))
        refused = 0
        try:
            found = await self._endpoint.choices(asked, count, deadline)
        except ChoicesRefused as failed:
            refused = failed.requests
            try:
                found = await self._endpoint.choices(asked, 1, deadline)
            except CallFailed as other:
                other.requests += refused
                raise
        if len(found) > 1:
            found = await self._without_copies(found, asked, deadline)
        if len(found) < count:
            self._learn(count)
        used = found[0].usage
        used = replace(used, requests=used.requests + refused)
        return [replace(found[0], usage=used), *found[1:]]

    async def _without_copies(
        self, found: list[Completion], asked: Mapping[str, Any], deadline: float | None
    ) -> list[Completion]:
        if len({each.text for each in found}) > 1:
            self._doubts = 0
        if not self._doubts:
            return found
        self._doubts -= 1
        try:
            alone = await self._endpoint.choices({**asked, "seed": asked["seed"] + 1}, 1, deadline)
        except CallFailed:
            return found
        if alone[0].text == found[0].text:
            usage = Usage.total([found[0].usage, alone[0].usage])
            return [replace(found[0], usage=usage), *found[1:]]
        return [found[0], *alone]

    def _learn(self, count: int) -> None:
        if self._most > 1:
            _log.warning(
                "the endpoint does not give several choices of one prompt, and is asked for each"
                " completion from now on",
                url=self.url,
                model=self.model,
                asked=count,
            )
        self._most = 1


class _Group:
    """Who waits for a completion, by seed.

    Args:
        close: lets nobody else join.
    """

    def __init__(self, close: Callable[[], object]) -> None:
        self.close = close
        self.waiting: dict[int, asyncio.Future[Completion]] = {}
        self.work: asyncio.Task[None] | None = None

    @property
    def wanted(self) -> list[int]:
        """Seeds whose callers did not go away."""
        return [seed for seed, waiting in self.waiting.items() if not waiting.done()]

    async def wait(self, seed: int) -> Completion:
        self.waiting[seed] = asyncio.get_running_loop().create_future()
        try:
            return await self.waiting[seed]
        finally:
            if self.work and all(each.cancelled() for each in self.waiting.values()):
                self.close()
                self.work.cancel()

    def answer(self, seed: int, found: _Found) -> None:
        waiting = self.waiting[seed]
        if waiting.done():
            return
        if isinstance(found, BaseException):
            waiting.set_exception(found)
        else:
            waiting.set_result(found)


def _hashable(value: Any) -> Hashable:
    return canonical_json(value) if isinstance(value, Mapping) else value


def _runs(seeds: Iterable[int], most: int) -> list[list[int]]:
    """Seeds that follow each other, at most so many."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][-1] + 1 and len(runs[-1]) < most:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return runs
