"""The replicas of a pool, as they tell each other: who is alive, and what each of them serves.

Each writes a status object of its own and renews it about every third of its lease. A reader
counts a lease from the moment at which it saw the status change, by its own steady clock: the
clocks of two machines need not agree. So a dead replica counts as alive for one lease, and for as
long as a reader takes between two looks.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from tuneproof.servicekit.errors import Corrupted, InvalidInput, NotFound, Unavailable
from tuneproof_generator import metrics
from tuneproof_generator.adapters.local_adapter import now
from tuneproof_generator.pool.replica_status import (
    FOLDER,
    AdapterStatus,
    Status,
    is_running,
    path_of,
    this_process,
)
from tuneproof_generator.pool.store import PoolStore

_COALESCE_SECONDS = 0.1
"""Changes within this time are told together."""
_FORGET_LEASES = 20
"""A status that was not renewed for so long is removed by whoever sees it."""
_CLOCKS_APART_SECONDS = 300.0
"""What is older than its lease and this at first sight is of a dead replica, clocks or not."""

_log = structlog.get_logger(__name__)


@dataclass
class _Seen:
    status: Status
    changed_at: float
    """When a change was last seen, in seconds of the steady clock."""
    ends_at: float
    """When the lease ends, likewise."""


class Replicas:
    """This replica's status, kept fresh, and the others' as last read.

    Args:
        lease_seconds: how long this replica counts as alive after it last wrote.
        process: where it runs, as `this_process` says it.
        clock: steady, in seconds.
    """

    def __init__(
        self,
        store: PoolStore,
        name: str,
        *,
        lease_seconds: float,
        process: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._store = store
        self._lease = lease_seconds
        self._process = this_process() if process is None else process
        self._clock = clock
        self._instance = uuid.uuid4().hex
        self._sequence = 0
        self._lease_ends_at = clock()
        self._seen: dict[str, _Seen] = {}
        self._news = asyncio.Event()
        self._order = asyncio.Lock()
        self._was_written = False
        self._ending = False
        self._clocks_apart: set[str] = set()
        self._obstacle = "the replica's status was not written yet"

    def others(self) -> dict[str, Mapping[str, AdapterStatus]]:
        """What each other live replica tells of its adapters, by replica, as last read."""
        return {name: seen.status.adapters for name, seen in sorted(self._alive().items())}

    def last_used(self, ref: str) -> datetime | None:
        """When an adapter last answered on another live replica, by this one's clock."""
        moment = self._clock()
        ages = [
            seen.status.written - status.last_used + timedelta(seconds=moment - seen.changed_at)
            for seen in self._alive().values()
            if (status := seen.status.adapters.get(ref)) and status.last_used
        ]
        return now() - min(ages) if ages else None

    def live(self) -> list[str]:
        """Names of the live replicas, this one included."""
        return sorted({self.name, *self._alive()})

    def lease_end(self, replica: str) -> datetime:
        """Until when the status of a live replica counts."""
        ends_at = self._lease_ends_at if replica == self.name else self._seen[replica].ends_at
        return now() + timedelta(seconds=ends_at - self._clock())

    @property
    def obstacle(self) -> str:
        """Why the others do not know what is true here; empty while all is well."""
        return self._obstacle

    def check(self) -> None:
        """Raises Unavailable while another live process has this replica's name, and before the
        status was written once: a bucket that is not there can be read, as an empty pool."""
        holder = self._seen.get(self.name)
        if holder is not None and self._holds(holder):
            raise Unavailable(self._taken(holder.status))
        if not self._was_written:
            raise Unavailable(self._obstacle)

    def check_name(self) -> None:
        """Raises InvalidInput when another process of this machine is this replica; blocks."""
        status, _ = self._read(path_of(self.name))
        if status and status.process != self._process and is_running(status.process):
            raise InvalidInput(self._taken(status), field="replica")

    def changed(self) -> None:
        """Something changed here, and the others shall know soon."""
        self._news.set()

    async def refresh(self) -> None:
        """Reads what the others tell.

        Raises:
            Unavailable: when the artifact store does not answer, or this replica's own status is
                gone from it: then it is not the store that it was.
        """
        async with self._order:
            paths, statuses = await asyncio.to_thread(self._read_others)
            for status in statuses:
                self._see(status)
            for name in [name for name in self._seen if path_of(name) not in paths]:
                del self._seen[name]
            for name, seen in list(self._seen.items()):
                if self._clock() - seen.changed_at > _FORGET_LEASES * seen.status.lease_seconds:
                    await asyncio.to_thread(self._store.delete, path_of(name))
                    del self._seen[name]
            metrics.LIVE_REPLICAS.set(len(self.live()))

    async def renew(self, adapters: Mapping[str, AdapterStatus]) -> None:
        """Writes this replica's status, if no other live process has its name.

        Raises:
            Unavailable: when the artifact store does not take it.
        """
        async with self._order:
            try:
                await self._claim(adapters)
            except Unavailable as error:
                self._obstacle = error.message
                raise

    @asynccontextmanager
    async def present(
        self, adapters: Callable[[], Mapping[str, AdapterStatus]]
    ) -> AsyncIterator[None]:
        """Keeps the status written while the context lasts: now, soon after each change, and often
        enough for the lease. Then takes it away, so that nobody waits for the lease to end.
        """
        keeping = asyncio.create_task(self._keep(adapters))
        try:
            yield
        finally:
            # Not cancelled: a write under way would come after the removal.
            self._ending = True
            self._news.set()
            await keeping
            await self._leave()

    async def _keep(self, adapters: Callable[[], Mapping[str, AdapterStatus]]) -> None:
        while not self._ending:
            self._news.clear()
            try:
                await self.renew(adapters())
            except Unavailable as error:
                _log.warning("replica's status not written", error=error.message)
            except Exception:  # noqa: BLE001 - a replica that falls silent is dead to the others
                _log.exception("replica's status not written")
            try:
                async with asyncio.timeout(self._lease / 3):
                    await self._news.wait()
                await asyncio.sleep(_COALESCE_SECONDS)
            except TimeoutError:
                continue

    async def _leave(self) -> None:
        try:
            status, _ = await asyncio.to_thread(self._read, path_of(self.name))
            if status and status.instance == self._instance:
                await asyncio.to_thread(self._store.delete, status.path)
        except Unavailable as error:
            _log.warning("replica's status not removed", error=error.message)

    async def _claim(self, adapters: Mapping[str, AdapterStatus]) -> None:
        """Writes the status, unless the object is another live process's."""
        begun = self._clock()
        status, is_there = await asyncio.to_thread(self._read, path_of(self.name))
        if status and status.instance != self._instance and self._holds(self._see(status)):
            if not self._obstacle:
                _log.error("replica's name is taken", holder=status.process)
            self._obstacle = self._taken(status)
            return
        self._seen.pop(self.name, None)
        self._sequence += 1
        mine = Status(
            self.name,
            self._instance,
            self._sequence,
            now(),
            self._lease,
            self._process,
            dict(adapters),
        )
        if is_there:
            await asyncio.to_thread(self._store.write, mine.path, mine.dump())
        elif not await asyncio.to_thread(self._store.create, mine.path, mine.dump()):
            # Of two that come at once one wins; the other learns at its next turn who it is.
            raise Unavailable(f"another process became replica {self.name} at this moment")
        self._obstacle, self._was_written = "", True
        self._lease_ends_at = begun + self._lease

    def _read_others(self) -> tuple[set[str], list[Status]]:
        """The objects that are there, and what could be read of the others'."""
        files = self._store.names(FOLDER)
        paths = {f"{FOLDER}/{file}" for file in files if not file.startswith(".")}
        if self._was_written and not self._obstacle and path_of(self.name) not in paths:
            raise Unavailable(
                "the pool's folder does not hold this replica's status any more; nothing is taken"
                " from it before that is written again"
            )
        read = [self._read(path)[0] for path in sorted(paths - {path_of(self.name)})]
        return paths, [status for status in read if status]

    def _read(self, path: str) -> tuple[Status | None, bool]:
        """A status, if it can be read, and whether there is an object."""
        try:
            return Status.load(self._store.read(path), path), True
        except NotFound:
            return None, False
        except Corrupted as error:
            metrics.IGNORED_OBJECTS.labels("status").inc()
            _log.warning("status ignored", error=error.message)
            return None, True

    def _see(self, status: Status) -> _Seen:
        moment, seen = self._clock(), self._seen.get(status.replica)
        age = (now() - status.written).total_seconds()
        if seen is None:
            is_dead = age > status.lease_seconds + _CLOCKS_APART_SECONDS
            ends_at = moment if is_dead else moment + status.lease_seconds
            seen = self._seen[status.replica] = _Seen(status, moment, ends_at)
        elif seen.status.instance != status.instance or seen.status.sequence < status.sequence:
            if abs(age) > status.lease_seconds and status.replica not in self._clocks_apart:
                self._clocks_apart.add(status.replica)
                _log.warning("clocks differ", replica=status.replica, seconds=round(age))
            seen.status, seen.changed_at = status, moment
            seen.ends_at = moment + status.lease_seconds
        return seen

    def _holds(self, seen: _Seen) -> bool:
        """Whether who wrote a status is alive, as far as can be known."""
        if seen.status.process == self._process:
            return False
        return self._clock() < seen.ends_at and is_running(seen.status.process) is not False

    def _alive(self) -> dict[str, _Seen]:
        moment = self._clock()
        return {
            name: seen
            for name, seen in self._seen.items()
            if name != self.name and moment < seen.ends_at
        }

    def _taken(self, holder: Status) -> str:
        process = holder.process.rsplit("/", 2)[1:2]
        return (
            f"another process{f' ({process[0]})' if process else ''} is replica {self.name} of"
            " this pool; give this one another name (--replica)"
        )
