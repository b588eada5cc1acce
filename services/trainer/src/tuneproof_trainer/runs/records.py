"""Every run's spec and newest state, as last read from the artifact store.

A spec never changes, and neither does a state that is final: each is read once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import structlog

from tuneproof.servicekit.errors import Corrupted, NotFound
from tuneproof_trainer.record import RunState, RunStatus
from tuneproof_trainer.runs.store import RunStore
from tuneproof_trainer.spec import RunSpec

T = TypeVar("T")

_AT_ONCE = 16
"""Calls of the store at the same time, where many runs are read."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Record:
    """A run as last read."""

    spec: RunSpec
    status: RunStatus
    version: int
    """The number of the state."""


class Records:
    """All runs of a store. Called from one event loop.

    `changed` wakes whoever waits for a run's state.
    """

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self._records: dict[str, Record] = {}
        self._unreadable: set[str] = set()
        self._change = asyncio.Event()

    def get(self, run_id: str) -> Record | None:
        """A run as last read; None when none of that id was seen."""
        return self._records.get(run_id)

    def __getitem__(self, run_id: str) -> Record:
        return self._records[run_id]

    def statuses(self, *states: RunState) -> list[RunStatus]:
        """The statuses in these states, or in all, the oldest first."""
        found = [
            record.status
            for record in self._records.values()
            if not states or record.status.state in states
        ]
        return sorted(found, key=lambda status: (status.create_time, status.id))

    async def refresh(self) -> None:
        """Reads what may have changed: new runs, and states that are not final.

        Raises:
            Unavailable: when the store does not answer.
        """
        ids = await asyncio.to_thread(self.store.ids)
        for gone in self._records.keys() - set(ids):
            del self._records[gone]
        stale = [run_id for run_id in ids if not self._is_final(run_id)]
        for run_id, record in zip(
            stale, await asyncio.to_thread(_each, self._read, stale), strict=True
        ):
            self._take(run_id, record)
        self._announce()

    async def reload(self, run_id: str) -> Record | None:
        """Reads one run again.

        Raises:
            Unavailable: when the store does not answer.
            Corrupted: when it cannot be read.
        """
        try:
            record = await asyncio.to_thread(self._load, run_id)
        except NotFound:
            self._records.pop(run_id, None)
            return None
        self._take(run_id, record)
        self._announce()
        return record

    async def advance(self, run_id: str, **changes: object) -> bool:
        """Writes a run's next state, made of the last one that was read.

        Returns:
            False when another trainer changed the run since then; what it wrote is read.

        Raises:
            Unavailable: when the store does not answer.
        """
        last = self._records[run_id]
        status = last.status.model_copy(update=changes)
        if not await asyncio.to_thread(self.store.advance, status, last.version):
            await self.reload(run_id)
            return False
        self._take(run_id, Record(last.spec, status, last.version + 1))
        self._announce()
        return True

    async def create(self, spec: RunSpec, status: RunStatus) -> Record | None:
        """Makes a run, or finds the one of that id; None when that cannot be read yet."""
        await asyncio.to_thread(self.store.create, status.id, spec, status)
        return await self.reload(status.id)

    async def changed(self, run_id: str, version: int, seconds: float) -> None:
        """Waits until a run has another state than this one, for `seconds` at most."""
        record = self._records.get(run_id)
        if record is not None and record.version == version:
            # Not `wait_for`: Python 3.11's loses a cancellation that comes together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._change.wait()

    def _is_final(self, run_id: str) -> bool:
        record = self._records.get(run_id)
        return record is not None and record.status.state.ended

    def _read(self, run_id: str) -> Record | None:
        try:
            record = self._load(run_id)
        except NotFound:
            return None  # It is being made at this moment.
        except Corrupted as error:
            if run_id not in self._unreadable:
                self._unreadable.add(run_id)
                _log.error("run left out", run=run_id, reason=error.message)
            return None
        self._unreadable.discard(run_id)
        return record

    def _load(self, run_id: str) -> Record:
        last = self._records.get(run_id)
        version = self.store.version(run_id)
        if last is not None and last.version == version:
            return last
        spec = last.spec if last else self.store.spec(run_id)
        return Record(spec, self.store.status(run_id, version), version)

    def _take(self, run_id: str, record: Record | None) -> None:
        last = self._records.get(run_id)
        if record is not None and (last is None or record.version >= last.version):
            self._records[run_id] = record

    def _announce(self) -> None:
        self._change.set()
        self._change = asyncio.Event()


def _each(read: Callable[[str], T], names: list[str]) -> list[T]:
    """Reads many runs at once. Raises Unavailable when the store did not answer for one."""
    if not names:
        return []
    with ThreadPoolExecutor(min(_AT_ONCE, len(names)), thread_name_prefix="runs") as pool:
        return list(pool.map(read, names))
