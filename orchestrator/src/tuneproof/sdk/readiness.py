"""Waiting until a pool serves an adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from tuneproof.sdk.values import AdapterInfo
from tuneproof.servicekit.errors import DeadlineExceeded, Unavailable, WrongState

_POLL_SECONDS = 0.2


async def until_ready(
    ref: str,
    changes: Callable[[], AsyncIterator[AdapterInfo]],
    *,
    timeout: float,
    on_change: Callable[[AdapterInfo], None] | None,
) -> AdapterInfo:
    """Waits until every live replica serves an adapter.

    A service that is away meanwhile is waited for: it reconciles itself to what is declared.

    Args:
        changes: gives the adapter as it is now, then each change.

    Raises:
        WrongState: when the adapter failed.
        Unavailable: when the service is away at the end of the time.
        DeadlineExceeded: when it is there, and the adapter not ready; names its last state.
    """
    last: AdapterInfo | None = None
    away: Unavailable | None = None
    try:
        async with asyncio.timeout(timeout):
            while True:
                try:
                    async for adapter in changes():
                        away = None
                        if on_change and (last is None or _differs(adapter, last)):
                            on_change(adapter)
                        last = adapter
                        if adapter.ready:
                            return adapter
                        if adapter.state == "failed":
                            raise WrongState(f"adapter {ref} cannot be served: {adapter.reason}")
                        if adapter.state == "ready":
                            break  # this replica is done; it tells no change of the others
                except Unavailable as error:
                    away = error
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        if away is not None:
            raise away from None
        state = f"it is {last.state}" if last else "its state is not known"
        raise DeadlineExceeded(f"adapter {ref} is not ready after {timeout:g} s: {state}") from None


def _differs(one: AdapterInfo, other: AdapterInfo) -> bool:
    return (one.state, one.reason, one.replicas) != (other.state, other.reason, other.replicas)
