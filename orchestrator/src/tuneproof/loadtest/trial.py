"""A load test from end to end: prepare, load, judge, clean up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from tuneproof.loadtest.arrivals import LoadSpec, Prompts
from tuneproof.loadtest.doors import Door
from tuneproof.loadtest.driving import clock
from tuneproof.loadtest.figures import Figures, figures_of
from tuneproof.loadtest.formats.mooncake import Trace
from tuneproof.loadtest.records import Phase
from tuneproof.loadtest.rounds import Progress, Rounds
from tuneproof.loadtest.swapping import REASON, Manager, Swapper, SwapSpec
from tuneproof.loadtest.truth import Probes, Truth
from tuneproof.sdk import AdapterInfo, AliasInfo, PoolInfo
from tuneproof.servicekit.errors import InvalidInput, TuneproofError


class Pool(Manager, Protocol):
    """The calls of a whole test; `GeneratorClient` has them."""

    async def pool(self) -> PoolInfo: ...

    async def adapters(self) -> list[AdapterInfo]: ...

    async def aliases(self) -> list[AliasInfo]: ...


@dataclass(frozen=True, slots=True)
class LoadResult:
    """A finished test."""

    phases: tuple[Phase, ...]
    figures: Figures
    started: datetime
    origin: float
    """The clock when it started."""
    load: LoadSpec
    models: tuple[str, ...]
    """References, aliases or names that got requests, the most popular first."""
    pool: PoolInfo | None = None
    swaps: SwapSpec | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    """Other conditions by name, such as the address."""


async def run_load(
    door: Door,
    load: LoadSpec,
    models: Sequence[str],
    *,
    prompts: Sequence[str] = (),
    probes: Probes | None = None,
    points: Mapping[str, str] | None = None,
    trace: Trace | None = None,
    progress: Progress = lambda _: None,
) -> LoadResult:
    """Load without swaps, against anything that answers.

    Args:
        models: none: the base model alone.
        points: references of known aliases; empty: the base model.
        trace: requests instead of random ones; it names the models.

    Raises:
        Unavailable: a model does not answer at all.
    """
    probes = probes or Probes()
    truth = Truth(probes)
    for alias, ref in (points or {}).items():
        truth.points(alias, ref)
    mixed = Prompts(load, prompts, probes.prompts)
    rounds = Rounds(door, load, models, mixed, truth, progress, trace)
    started, origin = datetime.now(UTC), clock()
    await rounds.warm_up()
    phases = await rounds.run(None)
    return LoadResult(phases, figures_of(phases), started, origin, load, tuple(models))


async def run_swaps(
    door: Door,
    manager: Pool,
    load: LoadSpec,
    swaps: SwapSpec,
    *,
    prompts: Sequence[str] = (),
    probes: Probes | None = None,
    trace: Trace | None = None,
    progress: Progress = lambda _: None,
) -> LoadResult:
    """Load with and without swaps in turn, against a generator's pool.

    Args:
        trace: requests instead of random ones. Its models stand for the aliases and residents, the
            most frequent one for the first.

    Raises:
        InvalidInput: the pool cannot hold the adapters, or already holds some of those to swap.
        Unavailable: an adapter does not answer.
    """
    probes = probes or Probes()
    truth = Truth(probes, lag=swaps.lag)
    pool = await manager.pool()
    _check_room(swaps, pool, [adapter.ref for adapter in await manager.adapters()])
    started, origin = datetime.now(UTC), clock()
    async with _declared(manager, swaps, truth, progress) as slots:
        models = (*slots, *swaps.residents)
        mixed = Prompts(load, prompts, probes.prompts)
        replayed = trace.onto(models, load) if trace else None
        rounds = Rounds(door, load, models, mixed, truth, progress, replayed)
        await rounds.warm_up()
        swapper = Swapper(manager, slots, swaps, truth, rounds.first_token)
        phases = await rounds.run(swapper)
    return LoadResult(phases, figures_of(phases), started, origin, load, tuple(models), pool, swaps)


def _check_room(swaps: SwapSpec, pool: PoolInfo, declared: Sequence[str]) -> None:
    chosen = (*swaps.adapters, *swaps.supply)
    mistakes = []
    if len(set(chosen)) < len(chosen):
        mistakes.append("an adapter is named twice")
    if taken := sorted(set(chosen) & set(declared)):
        mistakes.append(
            f"{', '.join(taken)} are already declared, and swapping would remove them; name others"
        )
    if absent := sorted(set(swaps.residents) - set(declared)):
        mistakes.append(f"{', '.join(absent)} are not declared, so they cannot be residents")
    if not swaps.adapters or not swaps.supply:
        mistakes.append(
            f"{len(chosen)} adapters are too few: at least one must serve, and one must wait"
        )
    needed = len(declared) + len(swaps.adapters) + 1
    if needed > pool.max_cpu_loras:
        mistakes.append(
            f"{len(declared)} declared adapters, {len(swaps.adapters)} of the test and the one that"
            f" comes in make {needed}; the engine keeps at most {pool.max_cpu_loras}"
            " (max_cpu_loras)"
        )
    if mistakes:
        raise InvalidInput("\n".join(mistakes))


@asynccontextmanager
async def _declared(
    manager: Pool, swaps: SwapSpec, truth: Truth, progress: Progress
) -> AsyncIterator[dict[str, str]]:
    """The first adapters, READY and behind their aliases; at the end it removes what is left."""
    slots: dict[str, str] = {}
    try:
        known = {alias.name: alias.ref for alias in await manager.aliases()}
        for number, ref in enumerate(swaps.adapters):
            alias = f"{swaps.alias_prefix}-{number}"
            progress(f"{alias}: {ref}")
            await manager.declare(ref)
            slots[alias] = ref
            await manager.wait_ready(ref, timeout=swaps.ready_seconds, on_change=None)
            await manager.set_alias(alias, ref, expected_ref=known.get(alias, ""), reason=REASON)
            truth.points(alias, ref)
        await asyncio.sleep(swaps.lag)
        yield slots
    finally:
        if not swaps.keep:
            for alias, ref in slots.items():
                await _retire(manager, alias, ref, progress)


async def _retire(manager: Pool, alias: str, ref: str, progress: Progress) -> None:
    """Retires an alias and removes its adapter, as far as both exist."""
    try:
        await manager.set_alias(alias, "", expected_ref=ref, force=True, reason=REASON)
    except TuneproofError as error:
        progress(f"{alias} stays: {error.message}")
    try:
        await manager.remove(ref)
    except TuneproofError as error:
        progress(f"{ref} stays declared: {error.message}")
