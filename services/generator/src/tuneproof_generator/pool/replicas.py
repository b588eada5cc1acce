"""The replicas of a pool: this one's heartbeat, and the others' statuses.

Each replica writes a status object of its own and renews it about every third of its lease.
`observed` reads them all.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import structlog

from tuneproof.adapters import ObjectStore
from tuneproof.servicekit.errors import InvalidInput, Unavailable
from tuneproof.servicekit.processes import is_running, this_process
from tuneproof_generator import metrics
from tuneproof_generator.clock import now
from tuneproof_generator.pool.observed import ObservedReplicas
from tuneproof_generator.pool.replica_status import AdapterStatus, ReplicaStatus, path_of

_COALESCE_SECONDS = 0.1
"""Changes within this time are written together."""

_log = structlog.get_logger(__name__)


class Replicas:
    """This replica among the others of its pool.

    Args:
        lease_seconds: how long this replica counts as alive after it last wrote.
        process: this one, see `this_process`.
        clock: steady, in seconds.
    """

    def __init__(
        self,
        store: ObjectStore,
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
        self._observed = ObservedReplicas(store, name, self._process, clock)
        self._instance = uuid.uuid4().hex
        self._sequence = 0
        self._lease_ends_at = clock()
        self._news = asyncio.Event()
        self._order = asyncio.Lock()
        self._was_written = False
        self._ending = False
        self._obstacle = "the replica's status was not written yet"

    def others(self) -> dict[str, Mapping[str, AdapterStatus]]:
        """The adapters' statuses on each other live replica, by replica, as last read."""
        return self._observed.others()

    def last_used(self, ref: str) -> datetime | None:
        """When an adapter last answered on another live replica, by this one's clock."""
        return self._observed.last_used(ref)

    def live(self) -> list[str]:
        """Names of the live replicas, this one included."""
        return sorted({self.name, *self._observed.alive()})

    def lease_end(self, replica: str) -> datetime:
        """Until when the status of a live replica counts."""
        is_mine = replica == self.name
        ends_at = self._lease_ends_at if is_mine else self._observed.lease_ends_at(replica)
        return now() + timedelta(seconds=ends_at - self._clock())

    @property
    def obstacle(self) -> str:
        """Why the others do not know this replica's state; empty while they do."""
        return self._obstacle

    def check(self) -> None:
        """Raises Unavailable while another live process has this replica's name, and until its
        status was written once: a bucket that does not exist reads like an empty pool."""
        if rival := self._observed.rival():
            raise Unavailable(self._taken(rival))
        if not self._was_written:
            raise Unavailable(self._obstacle)

    def check_name(self) -> None:
        """Raises InvalidInput when another process of this machine is this replica; blocks."""
        status, _ = self._observed.read(self.name)
        if status and status.process != self._process and is_running(status.process):
            raise InvalidInput(self._taken(status), field="replica")

    def changed(self) -> None:
        """Tells the others soon: something changed here."""
        self._news.set()

    async def refresh(self) -> None:
        """Reads the statuses of the others.

        Raises:
            Unavailable: when the artifact store does not answer, or lost this replica's own status:
                then it is another store than before.
        """
        async with self._order:
            expects_own = self._was_written and not self._obstacle
            paths, statuses = await asyncio.to_thread(
                self._observed.read_others, expects_own=expects_own
            )
            for status in statuses:
                self._observed.see(status)
            self._observed.forget_missing(paths)
            for name in self._observed.silent():
                await asyncio.to_thread(self._store.delete, path_of(name))
                self._observed.forget(name)
            metrics.LIVE_REPLICAS.set(len(self.live()))

    async def renew(self, adapters: Mapping[str, AdapterStatus]) -> None:
        """Writes this replica's status, unless another live process has its name.

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
        enough for the lease. Then removes it, so that nobody waits for the lease to end.
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
            status, _ = await asyncio.to_thread(self._observed.read, self.name)
            if status and status.instance == self._instance:
                await asyncio.to_thread(self._store.delete, status.path)
        except Unavailable as error:
            _log.warning("replica's status not removed", error=error.message)

    async def _claim(self, adapters: Mapping[str, AdapterStatus]) -> None:
        """Writes the status, unless the object is another live process's."""
        begun = self._clock()
        status, exists = await asyncio.to_thread(self._observed.read, self.name)
        if status and status.instance != self._instance:
            self._observed.see(status)
            if rival := self._observed.rival():
                if not self._obstacle:
                    _log.error("replica's name is taken", holder=rival.process)
                self._obstacle = self._taken(rival)
                return
        self._observed.forget(self.name)
        self._sequence += 1
        mine = ReplicaStatus(
            self.name,
            self._instance,
            self._sequence,
            now(),
            self._lease,
            self._process,
            dict(adapters),
        )
        if exists:
            await asyncio.to_thread(self._store.write, mine.path, mine.dump())
        elif not await asyncio.to_thread(self._store.create, mine.path, mine.dump()):
            # Of two processes at once one wins; the other reads its name at its next attempt.
            raise Unavailable(f"another process became replica {self.name} at this moment")
        self._obstacle, self._was_written = "", True
        self._lease_ends_at = begun + self._lease

    def _taken(self, holder: ReplicaStatus) -> str:
        process = holder.process.rsplit("/", 2)[1:2]
        return (
            f"another process{f' ({process[0]})' if process else ''} is replica {self.name} of"
            " this pool; give this one another name (--replica)"
        )
