"""Waiting until a pool serves an adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from tuneproof.sdk.pools import AdapterInfo
from tuneproof.servicekit.errors import DeadlineExceeded, NotFound, Unavailable, WrongState
from tuneproof.servicekit.retries import Patience, Retries

_POLL_SECONDS = 0.2
_STALE_SECONDS = 15.0
_AWAY = Retries(first=0.2, longest=1.0)


async def until_ready(
    ref: str,
    changes: Callable[[], AsyncGenerator[AdapterInfo, None]],
    *,
    timeout: float,
    away_seconds: float,
    on_change: Callable[[AdapterInfo], None] | None,
    stale_seconds: float = _STALE_SECONDS,
) -> AdapterInfo:
    """Waits until every live replica serves an adapter.

    Waits for an absent service too: it reconciles itself to what is declared.

    Args:
        changes: gives the adapter as it is now, then each change.
        away_seconds: how long the service may be away at a time.
        stale_seconds: how long some replicas may say `failed` while others do not: their status
            may be older than the declaration.

    Raises:
        WrongState: when the adapter failed.
        NotFound: when it is removed meanwhile.
        Unavailable: when the service is away for too long, or when the time ends.
        DeadlineExceeded: when the service is there and the adapter is not ready; names its state.
    """
    last: AdapterInfo | None = None
    away: Unavailable | None = None
    patience = Patience(_AWAY, away_seconds)
    looks = _Looks(ref, stale_seconds)
    try:
        async with asyncio.timeout(timeout):
            while True:
                try:
                    async with aclosing(changes()) as told:
                        async for adapter in told:
                            away = None
                            patience.answered()
                            if on_change and (last is None or _shown(adapter) != _shown(last)):
                                on_change(adapter)
                            last = adapter
                            if looks.are_over(adapter):
                                return adapter
                            if adapter.state in {"ready", "failed"}:
                                break  # this replica is done; the others' changes do not show here
                except Unavailable as error:
                    away = error
                    await patience.wait(error)
                else:
                    await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        if away is not None:
            raise away from None
        state = f"it is {states_of(last)}" if last else "its state is not known"
        raise DeadlineExceeded(f"adapter {ref} is not ready after {timeout:g} s: {state}") from None


class _Looks:
    """Says at each look at an adapter whether to go on waiting."""

    def __init__(self, ref: str, stale_seconds: float) -> None:
        self._ref = ref
        self._stale_seconds = stale_seconds
        self._clock = asyncio.get_running_loop().time
        self._failing_since: float | None = None

    def are_over(self, adapter: AdapterInfo) -> bool:
        """Whether it is ready; raises when it will not be."""
        if adapter.state == "removed":
            raise NotFound(f"adapter {self._ref} was removed while it was waited for")
        failures = _failures(adapter)
        if not failures:
            self._failing_since = None
            return adapter.ready
        now = self._clock()
        self._failing_since = self._failing_since or now
        everywhere = len(failures) >= len(adapter.replicas)
        if everywhere or now - self._failing_since > self._stale_seconds:
            raise WrongState(f"adapter {self._ref} cannot be served: {'; '.join(failures)}")
        return False


def states_of(adapter: AdapterInfo) -> str:
    """The state, or the states by replica where they differ."""
    states = {replica.state for replica in adapter.replicas.values()}
    if states <= {adapter.state}:
        return adapter.state
    return ", ".join(f"{one.state} on {name}" for name, one in adapter.replicas.items())


def _failures(adapter: AdapterInfo) -> list[str]:
    """Why it failed, by replica where there are several."""
    if len(adapter.replicas) < 2:
        return [adapter.reason] if adapter.state == "failed" else []
    failed = {name: one for name, one in adapter.replicas.items() if one.state == "failed"}
    return [f"{one.reason} (on {name})" for name, one in failed.items()]


def _shown(adapter: AdapterInfo) -> object:
    replicas = {name: (one.state, one.reason) for name, one in adapter.replicas.items()}
    return adapter.state, adapter.reason, replicas
