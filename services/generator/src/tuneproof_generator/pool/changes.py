"""Telling watchers about changes, at the pace of each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from tuneproof_generator.adapters.lifecycle import AdapterRecord
from tuneproof_generator.adapters.traffic import Usage
from tuneproof_generator.pool.replica_status import AdapterStatus


@dataclass(frozen=True)
class OnReplica:
    """An adapter on one live replica of the pool."""

    replica: str
    status: AdapterStatus
    lease_end: datetime
    """Until then the status counts, by this machine's clock; in UTC."""


@dataclass(frozen=True)
class AdapterView:
    """An adapter on this replica, the aliases that point to it, and what the others say of it."""

    record: AdapterRecord
    aliases: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)
    replicas: tuple[OnReplica, ...] = ()
    """Every live one, this one included, sorted by name."""


@dataclass(frozen=True)
class Change:
    """What happened to an adapter."""

    ref: str
    view: AdapterView | None
    """None when it is gone."""


class Changes:
    """Hands each change to every watcher.

    A slow watcher gets the newest state of an adapter and skips those in between (the transitions
    list them). So the queue stays short.
    """

    def __init__(self, current: Callable[[], Iterable[AdapterView]]) -> None:
        self._current = current
        self._watchers: set[_Watcher] = set()

    def tell(self, change: Change) -> None:
        """Gives a change to all watchers."""
        for watcher in self._watchers:
            watcher.waiting[change.ref] = change
            watcher.news.set()

    async def watch(self, refs: frozenset[str]) -> AsyncGenerator[Change, None]:
        """The adapters as they are now, then each change, without end.

        Args:
            refs: only these; empty means all.
        """
        watcher = _Watcher()
        for view in self._current():
            watcher.waiting[view.record.ref] = Change(view.record.ref, view)
        self._watchers.add(watcher)
        try:
            while True:
                changes = list(watcher.waiting.values())
                watcher.waiting.clear()
                watcher.news.clear()
                for change in changes:
                    if not refs or change.ref in refs:
                        yield change
                if not watcher.waiting:
                    await watcher.news.wait()
        finally:
            self._watchers.discard(watcher)


class _Watcher:
    def __init__(self) -> None:
        self.waiting: dict[str, Change] = {}
        self.news = asyncio.Event()
