"""Following adapters while the replicas that report them come and go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

from tuneproof.cli.adapters.tables import summary_of
from tuneproof.cli.console import say
from tuneproof.sdk import AdapterInfo
from tuneproof.servicekit.errors import DeadlineExceeded, Unavailable
from tuneproof.servicekit.retries import Patience, Retries

_AWAY_SECONDS = 60.0
_PAUSE_SECONDS = 1.0
_AWAY = Retries(first=1.0, longest=4.0)
_STOOD_SECONDS = 10.0
"""A watch that lasted this long worked, even if nothing changed."""


class Watchable(Protocol):
    """A generator's client."""

    def watch(self, refs: Sequence[str]) -> AsyncGenerator[AdapterInfo, None]:
        """The adapters as they are, then each change."""


async def watch_on(
    client: Watchable,
    refs: Sequence[str],
    show: Callable[[AdapterInfo], None],
    *,
    away_seconds: float = _AWAY_SECONDS,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Shows changes without end, each once, and watches again when a watch ends.

    Raises:
        Unavailable: the generator is away for longer than `away_seconds`.
    """
    shown: dict[str, str] = {}
    patience = Patience(_AWAY, away_seconds, sleep=sleep)
    while True:
        begun = time.monotonic()
        try:
            async with aclosing(client.watch(refs)) as changes:
                async for adapter in changes:
                    patience.answered()
                    if shown.get(adapter.ref) != (now := summary_of(adapter)):
                        shown[adapter.ref] = now
                        show(adapter)
        except (Unavailable, DeadlineExceeded) as error:
            if time.monotonic() - begun > _STOOD_SECONDS:
                patience.answered()
            if not patience.is_away:
                say(f"{error.message}; watching again")
            await patience.wait(error)
        else:
            await sleep(_PAUSE_SECONDS)
