"""What the other replicas say, and which of them are alive, as this replica observes it.

A reader counts a lease from the moment at which it saw the status change, by its own steady clock:
the clocks of two machines need not agree. So a dead replica counts as alive for one lease, and for
as long as a reader takes between two looks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from tuneproof.adapters import ObjectStore
from tuneproof.servicekit.errors import Corrupted, NotFound, Unavailable
from tuneproof.servicekit.processes import is_running
from tuneproof_generator import metrics
from tuneproof_generator.clock import now
from tuneproof_generator.pool.replica_status import FOLDER, AdapterStatus, ReplicaStatus, path_of

_FORGET_LEASES = 20
"""Any replica removes a status that was not renewed for this many leases."""
_CLOCKS_APART_SECONDS = 300.0
"""A status that is older than its lease and this when it is first seen is a dead replica's, even if
the clocks differ."""

_log = structlog.get_logger(__name__)


@dataclass
class Observation:
    """What was last seen of one replica."""

    status: ReplicaStatus
    changed_at: float
    """When a change was last seen, in seconds of the steady clock."""
    ends_at: float
    """When the lease ends, likewise."""


class ObservedReplicas:
    """The statuses of all replicas, as last read. Reading blocks; run it in a thread.

    Args:
        name: of this replica.
        process: this one, see `this_process`.
        clock: steady, in seconds.
    """

    def __init__(
        self, store: ObjectStore, name: str, process: str, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._name = name
        self._process = process
        self._clock = clock
        self._seen: dict[str, Observation] = {}
        self._clocks_apart: set[str] = set()

    def alive(self) -> dict[str, Observation]:
        """The other replicas whose lease runs, by name."""
        moment = self._clock()
        return {
            name: seen
            for name, seen in self._seen.items()
            if name != self._name and moment < seen.ends_at
        }

    def others(self) -> dict[str, Mapping[str, AdapterStatus]]:
        """The adapters' statuses on each other live replica, by replica."""
        return {name: seen.status.adapters for name, seen in sorted(self.alive().items())}

    def last_used(self, ref: str) -> datetime | None:
        """When an adapter last answered on another live replica, by this one's clock."""
        moment = self._clock()
        ages = [
            seen.status.written - status.last_used + timedelta(seconds=moment - seen.changed_at)
            for seen in self.alive().values()
            if (status := seen.status.adapters.get(ref)) and status.last_used
        ]
        return now() - min(ages) if ages else None

    def lease_ends_at(self, replica: str) -> float:
        """When another replica's lease ends, in seconds of the steady clock."""
        return self._seen[replica].ends_at

    def rival(self) -> ReplicaStatus | None:
        """The status of another live process that has this replica's name, if there is one."""
        seen = self._seen.get(self._name)
        return seen.status if seen is not None and self._is_rival(seen) else None

    def see(self, status: ReplicaStatus) -> None:
        """Takes note of a status that was read."""
        moment, seen = self._clock(), self._seen.get(status.replica)
        age = (now() - status.written).total_seconds()
        if seen is None:
            is_dead = age > status.lease_seconds + _CLOCKS_APART_SECONDS
            ends_at = moment if is_dead else moment + status.lease_seconds
            self._seen[status.replica] = Observation(status, moment, ends_at)
        elif seen.status.instance != status.instance or seen.status.sequence < status.sequence:
            if abs(age) > status.lease_seconds and status.replica not in self._clocks_apart:
                self._clocks_apart.add(status.replica)
                _log.warning("clocks differ", replica=status.replica, seconds=round(age))
            seen.status, seen.changed_at = status, moment
            seen.ends_at = moment + status.lease_seconds

    def forget(self, replica: str) -> None:
        """Drops what was seen of a replica."""
        self._seen.pop(replica, None)

    def read(self, replica: str) -> tuple[ReplicaStatus | None, bool]:
        """A replica's status, if it can be read, and whether its object exists."""
        return self._read(path_of(replica))

    def read_others(self, *, expects_own: bool) -> tuple[set[str], list[ReplicaStatus]]:
        """The objects that exist, and those of the other replicas that could be read.

        Args:
            expects_own: whether this replica's own object must exist.

        Raises:
            Unavailable: when it must and does not: then this is another store than before.
        """
        files = self._store.names(FOLDER)
        paths = {f"{FOLDER}/{file}" for file in files if not file.startswith(".")}
        if expects_own and path_of(self._name) not in paths:
            raise Unavailable(
                "the pool's folder lost this replica's status; this replica reads nothing else"
                " from it until it has written the status again"
            )
        read = [self._read(path)[0] for path in sorted(paths - {path_of(self._name)})]
        return paths, [status for status in read if status]

    def forget_missing(self, paths: set[str]) -> None:
        """Forgets replicas whose object is gone."""
        for name in [name for name in self._seen if path_of(name) not in paths]:
            self.forget(name)

    def silent(self) -> list[str]:
        """Replicas that have been silent for so long that their objects may be deleted."""
        return [
            name
            for name, seen in self._seen.items()
            if self._clock() - seen.changed_at > _FORGET_LEASES * seen.status.lease_seconds
        ]

    def _read(self, path: str) -> tuple[ReplicaStatus | None, bool]:
        try:
            return ReplicaStatus.load(self._store.read(path), path), True
        except NotFound:
            return None, False
        except Corrupted as error:
            metrics.IGNORED_OBJECTS.labels("status").inc()
            _log.warning("status ignored", error=error.message)
            return None, True

    def _is_rival(self, seen: Observation) -> bool:
        """Whether another process that wrote under this replica's name may be alive."""
        if seen.status.process == self._process:
            return False
        return self._clock() < seen.ends_at and is_running(seen.status.process) is not False
