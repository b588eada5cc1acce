"""Phases of load against one door, with and without swaps in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import product
from typing import Literal

from tuneproof.loadtest.arrivals import LoadSpec, Prompts, asks
from tuneproof.loadtest.doors import Door
from tuneproof.loadtest.driving import clock, drive_full, drive_open, send
from tuneproof.loadtest.records import Ask, Phase, Reply
from tuneproof.loadtest.swapping import Swapper
from tuneproof.loadtest.truth import Truth
from tuneproof.servicekit.errors import Unavailable

Progress = Callable[[str], None]
Side = Literal["quiet", "swap"]
Load = Literal["open", "full"]

_WORDS = {
    ("open", "quiet"): "arrivals without swaps",
    ("open", "swap"): "arrivals with swaps",
    ("full", "quiet"): "full load without swaps",
    ("full", "swap"): "full load with swaps",
}


class Rounds:
    """Phases of load against one door.

    Args:
        models: the most popular first.
        progress: is told of every phase.
    """

    def __init__(
        self,
        door: Door,
        load: LoadSpec,
        models: Sequence[str],
        *,
        prompts: Prompts,
        truth: Truth,
        progress: Progress,
    ) -> None:
        self._door = door
        self._load = load
        self._models = tuple(models)
        self._prompts = prompts
        self._truth = truth
        self._progress = progress
        self._direct: list[Reply] = []

    async def warm_up(self) -> None:
        """Asks every model once, so that the first phase is no colder than the others.

        Raises:
            Unavailable: for a request that fails.
        """
        for model in (*self._models, *([""] if self._load.base_share else [])):
            reply = await self._ask(model)
            if reply.error:
                raise Unavailable(f"{model or 'the base model'} does not answer: {reply.error}")

    async def first_token(self, ref: str) -> float | None:
        """Seconds to the first token of a request of the longest kind; part of no load."""
        reply = await self._ask(ref)
        self._direct.append(reply)
        return None if reply.error else reply.first_seconds

    async def run(self, swapper: Swapper | None, rate: float) -> tuple[Phase, ...]:
        """All rounds; the sides take turns in being the first."""
        phases: list[Phase] = []
        loads: list[Load] = ["open"]
        if self._load.in_flight:
            loads.append("full")
        for number in range(1, self._load.rounds + 1):
            sides: list[Side] = ["quiet", "swap"] if swapper else ["quiet"]
            for load, side in product(loads, sides if number % 2 else sides[::-1]):
                self._progress(f"round {number} of {self._load.rounds}: {_WORDS[load, side]}")
                chosen = swapper if side == "swap" else None
                phases.append(await self._phase(load, side, number, chosen, rate))
        return tuple(phases)

    async def _phase(
        self,
        load: Load,
        side: Side,
        number: int,
        swapper: Swapper | None,
        rate: float,
    ) -> Phase:
        spec = self._load
        requests = asks(spec, self._models, self._prompts, number)
        seconds = spec.seconds if load == "open" else spec.full_seconds
        start = clock()
        self._direct.clear()
        async with asyncio.TaskGroup() as group:
            swapping = group.create_task(swapper.run(rate, seconds)) if swapper else None
            driving = group.create_task(
                drive_open(self._door, requests, seconds=seconds, timeout=spec.timeout)
                if load == "open"
                else drive_full(
                    self._door,
                    requests,
                    seconds=seconds,
                    in_flight=spec.in_flight,
                    timeout=spec.timeout,
                )
            )
        return Phase(
            side=side,
            load=load,
            round=number,
            start=start,
            end=start + seconds,
            replies=tuple(map(self._truth.judge, driving.result())),
            swaps=swapping.result() if swapping else (),
            direct=tuple(map(self._truth.judge, self._direct)),
        )

    async def _ask(self, model: str) -> Reply:
        ask = Ask(0.0, model, self._prompts.next(), self._load.answer_tokens.high)
        return await send(self._door, ask, clock(), timeout=self._load.timeout)
