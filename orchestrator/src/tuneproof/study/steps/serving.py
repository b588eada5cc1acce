"""Adapters in the generator: had served, and withdrawn."""

from __future__ import annotations

from collections.abc import Callable

from tuneproof.sdk import GeneratorClient
from tuneproof.servicekit.errors import TuneproofError
from tuneproof.study.services import Services

_AWAY_SECONDS = 10.0


def held_at_once(services: Services) -> int:
    """Adapters that one batch of the generator's engine can hold, known once it was asked."""
    pool = services.pool
    return max(1, min(pool.max_loras, pool.max_cpu_loras)) if pool else 1


async def serve(generator: GeneratorClient, adapter: str, note: Callable[[str], None]) -> None:
    """Has an adapter served; nothing for the base model, which is named by an empty text."""
    if adapter:
        name = adapter.partition("@")[0]
        await generator.declare(adapter)
        await generator.wait_ready(
            adapter,
            away_seconds=_AWAY_SECONDS,
            on_change=lambda now: note(f"{name} {now.state}"),
        )


async def make_room(
    services: Services, adapter: str, adapters: int, note: Callable[[str], None]
) -> None:
    """Withdraws an adapter where the generator holds fewer than so many; else it stays served."""
    if not adapter or adapters <= held_at_once(services):
        return
    try:
        await (await services.generator()).remove(adapter)
    except TuneproofError as error:
        note(f"{adapter} was not removed: {error.message}")
