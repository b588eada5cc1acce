"""Phases of load against one door, with and without swaps in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any, Literal

from tuneproof.loadtest.arrivals import LoadSpec, Prompts, asks
from tuneproof.loadtest.doors import Door
from tuneproof.loadtest.driving import clock, drive_full, drive_open, send
from tuneproof.loadtest.formats.mooncake import Trace
from tuneproof.loadtest.records import Ask, Phase, Reply, Side
from tuneproof.loadtest.swapping import Swapper
from tuneproof.loadtest.truth import Truth
from tuneproof.servicekit.errors import Unavailable

Progress = Callable[[str], None]
Load = Literal["open", "full"]

_WORDS = {
    ("open", "quiet"): "arrivals without swaps",
    ("open", "swap"): "arrivals with swaps",
    ("full", "quiet"): "full load without swaps",
    ("full", "swap"): "full load with swaps",
    ("open", "base"): "the same arrivals for the base model",
    ("full", "base"): "full load of the base model",
}


@dataclass(frozen=True)
class Rounds:
    """Phases of load against one door."""

    door: Door
    load: LoadSpec
    models: Sequence[str]
    """The most popular first."""
    prompts: Prompts
    truth: Truth
    progress: Progress
    """Receives a line for every phase."""
    trace: Trace | None = None
    """Its requests, instead of random ones to `models`."""
    direct: list[Reply] = field(default_factory=list, init=False)
    """Replies to the swaps' own requests in the current phase."""

    async def warm_up(self) -> None:
        """Sends one request to every model, so that the first phase is as warm as the others.

        Raises:
            Unavailable: a request fails.
        """
        base = self.load.base_share or self.load.against_base
        for model in (*self.models, *([""] if base else [])):
            reply = await self._ask(model)
            if reply.error:
                raise Unavailable(f"{model or 'the base model'} does not answer: {reply.error}")

    async def first_token(self, ref: str) -> float | None:
        """Seconds to the first token of a request of the longest kind, outside the load."""
        reply = await self._ask(ref)
        self.direct.append(reply)
        return None if reply.error else reply.first_seconds

    async def run(self, swapper: Swapper | None) -> tuple[Phase, ...]:
        """All rounds; the sides take turns to come first."""
        phases: list[Phase] = []
        loads: list[Load] = ["open", "full"] if self.load.in_flight else ["open"]
        for number in range(1, self.load.rounds + 1):
            sides: list[Side] = ["quiet", "swap"] if swapper else ["quiet"]
            sides += ["base"] if self.load.against_base else []
            for load, side in product(loads, sides if number % 2 else sides[::-1]):
                self.progress(f"round {number} of {self.load.rounds}: {_WORDS[load, side]}")
                chosen = swapper if side == "swap" else None
                phases.append(await self._phase(load, side, number, chosen))
        return tuple(phases)

    async def _phase(self, load: Load, side: Side, number: int, swapper: Swapper | None) -> Phase:
        spec = self.load
        base_only = side == "base"
        if self.trace is None:
            requests = asks(spec, () if base_only else self.models, self.prompts, number)
        else:
            requests = self.trace.requests(base_only=base_only)
        drive: Callable[..., Coroutine[Any, Any, tuple[Reply, ...]]]
        if load == "open":
            drive, seconds = drive_open, spec.seconds
        else:
            drive = partial(drive_full, in_flight=spec.in_flight)
            seconds = spec.full_seconds
        start = clock()
        self.direct.clear()
        async with asyncio.TaskGroup() as group:
            swapping = group.create_task(swapper.run(seconds)) if swapper else None
            driving = group.create_task(
                drive(self.door, requests, seconds=seconds, timeout=spec.timeout)
            )
        return Phase(
            side=side,
            load=load,
            round=number,
            start=start,
            end=start + seconds,
            replies=tuple(map(self.truth.judge, driving.result())),
            swaps=swapping.result() if swapping else (),
            direct=tuple(map(self.truth.judge, self.direct)),
        )

    async def _ask(self, model: str) -> Reply:
        ask = Ask(0.0, model, self.prompts.next(), self.load.answer_tokens.high)
        return await send(self.door, ask, clock(), timeout=self.load.timeout)
