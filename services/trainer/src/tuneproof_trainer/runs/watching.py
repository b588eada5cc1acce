"""Follows the losses of runs that are watched: one reader for all watchers of a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from tuneproof.servicekit.errors import Unavailable
from tuneproof_trainer.progress import Step
from tuneproof_trainer.record import Heartbeat
from tuneproof_trainer.runs.records import Record, Records

_log = structlog.get_logger(__name__)


@dataclass
class Feed:
    """What all watchers of one run see."""

    record: Record
    steps: list[Step] = field(default_factory=list)
    """Every step so far, oldest first."""
    heartbeat: Heartbeat | None = None
    """Of the newest attempt."""
    watchers: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def last_step(self) -> Step | None:
        """Where the run is; an attempt that began again is behind its losses."""
        if self.record.status.state.ended or self.heartbeat is None:
            return self.steps[-1] if self.steps else None
        return self.heartbeat.step or (self.steps[-1] if self.steps else None)


class Watching:
    """The feeds of all watched runs.

    Args:
        seconds: between two looks at a watched run.
    """

    def __init__(self, records: Records, seconds: float) -> None:
        self._records = records
        self._seconds = seconds
        self._feeds: dict[str, tuple[Feed, asyncio.Task[None]]] = {}

    @asynccontextmanager
    async def follow(self, record: Record) -> AsyncIterator[Feed]:
        """The feed of a run, kept up to date while the context lasts.

        Raises:
            Unavailable: when the store does not answer.
        """
        run_id = record.status.id
        if run_id not in self._feeds:
            feed = Feed(record)
            await self._read(feed)
            if run_id not in self._feeds:  # Another watcher may have come meanwhile.
                task = asyncio.create_task(self._keep(feed), name=f"watch {run_id}")
                self._feeds[run_id] = (feed, task)
        feed, task = self._feeds[run_id]
        feed.watchers += 1
        try:
            yield feed
        finally:
            feed.watchers -= 1
            if not feed.watchers:
                del self._feeds[run_id]
                task.cancel()

    async def read(self, record: Record) -> Feed:
        """A run as it is now."""
        feed = Feed(record)
        await self._read(feed)
        return feed

    async def _keep(self, feed: Feed) -> None:
        while not feed.record.status.state.ended:
            await self._records.changed(feed.record.status.id, feed.record.version, self._seconds)
            try:
                await self._read(feed)
            except Unavailable as error:  # The watchers wait with the store.
                _log.debug("run not read", run=feed.record.status.id, error=error.message)
                await asyncio.sleep(self._seconds)
            except Exception:  # noqa: BLE001 - watchers would wait for ever
                _log.exception("run not read", run=feed.record.status.id)
                await asyncio.sleep(self._seconds)

    async def _read(self, feed: Feed) -> None:
        run_id = feed.record.status.id
        # The state before the steps: a run that has ended has them all.
        record = self._records.get(run_id) or feed.record
        after = feed.steps[-1].step if feed.steps else 0
        store, attempt = self._records.store, record.status.attempt
        steps = await asyncio.to_thread(store.metrics(run_id).read, after)
        heartbeat = await asyncio.to_thread(store.read, Heartbeat, run_id, attempt)
        changed = record is not feed.record or steps or heartbeat != feed.heartbeat
        feed.record, feed.heartbeat = record, heartbeat
        feed.steps += steps
        if changed:
            feed.news.set()
            feed.news = asyncio.Event()
