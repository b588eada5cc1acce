"""What a replica tells the others about itself: one object, written whole each time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tuneproof.servicekit.errors import Corrupted
from tuneproof_generator.adapters.lifecycle import AdapterState
from tuneproof_generator.pool.store import content_of

FOLDER = "replicas"
_LONGEST = 86_400.0


@dataclass(frozen=True)
class AdapterStatus:
    """An adapter on one replica."""

    state: AdapterState
    reason: str = ""
    last_used: datetime | None = field(default=None, compare=False)
    """When it last answered there, in UTC by that replica's clock; the time of writing while it
    does."""

    def content(self) -> dict[str, str]:
        """Its part of the stored object."""
        used = {"last_used": self.last_used.isoformat()} if self.last_used else {}
        return {"state": self.state, "reason": self.reason, **used}

    @classmethod
    def of(cls, content: Mapping[str, str]) -> AdapterStatus:
        """The status in a part of an object."""
        used = content.get("last_used")
        return cls(
            AdapterState(content["state"]),
            str(content["reason"]),
            datetime.fromisoformat(used).astimezone(UTC) if used else None,
        )


@dataclass(frozen=True)
class ReplicaStatus:
    """What one replica wrote."""

    replica: str
    instance: str
    """Of the process; another one of the same name has another."""
    sequence: int
    """Counts what the instance wrote, from 1."""
    written: datetime
    """In UTC, by the writer's clock; no lease is computed from it."""
    lease_seconds: float
    process: str
    """Where it runs, as `this_process` says it."""
    adapters: Mapping[str, AdapterStatus]
    """By reference."""

    @property
    def path(self) -> str:
        """Its object in the pool's folder."""
        return path_of(self.replica)

    def dump(self) -> bytes:
        """The object's content."""
        adapters = {ref: status.content() for ref, status in self.adapters.items()}
        content = {**vars(self), "written": self.written.isoformat(), "adapters": adapters}
        return json.dumps(content).encode()

    @classmethod
    def load(cls, data: bytes, path: str) -> ReplicaStatus:
        """The status in an object.

        Raises:
            Corrupted: when it is no status, or not of the replica that its path names.
        """
        try:
            content = content_of(data)
            status = cls(
                replica=str(content["replica"]),
                instance=str(content["instance"]),
                sequence=int(content["sequence"]),
                written=datetime.fromisoformat(content["written"]),
                lease_seconds=float(content["lease_seconds"]),
                process=str(content["process"]),
                adapters={
                    str(ref): AdapterStatus.of(each) for ref, each in content["adapters"].items()
                },
            )
            is_sound = status.written.tzinfo is not None and 0 < status.lease_seconds < _LONGEST
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Corrupted(f"{path} in the pool's folder is no status: {error!r}") from None
        if status.path != path or not is_sound:
            raise Corrupted(f"{path} in the pool's folder has a wrong name, time or lease")
        return status


def path_of(replica: str) -> str:
    """The object in which a replica tells about itself."""
    return f"{FOLDER}/{replica}.json"
