"""The status that a replica writes for the others: one object, written whole each time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AwareDatetime, Field, TypeAdapter

from tuneproof.servicekit.errors import Corrupted
from tuneproof_generator.adapters.lifecycle import AdapterState

FOLDER = "replicas"


@dataclass(frozen=True)
class AdapterStatus:
    """An adapter on one replica."""

    state: AdapterState
    reason: str = ""
    last_used: AwareDatetime | None = field(default=None, compare=False)
    """When it last answered there, by that replica's clock; the time of writing while it does."""


@dataclass(frozen=True)
class ReplicaStatus:
    """What one replica wrote."""

    replica: str
    instance: str
    """Of the process; another one of the same name has another."""
    sequence: int
    """Counts what the instance wrote, from 1."""
    written: AwareDatetime
    """In UTC, by the writer's clock; no lease is computed from it."""
    lease_seconds: Annotated[float, Field(gt=0, lt=86_400)]
    process: str
    """The writer, see `this_process`."""
    adapters: Mapping[str, AdapterStatus]
    """By reference."""

    @property
    def path(self) -> str:
        """Its object in the pool's folder."""
        return path_of(self.replica)

    def dump(self) -> bytes:
        """The object's content."""
        return _STORED.dump_json(self)

    @classmethod
    def load(cls, data: bytes, path: str) -> ReplicaStatus:
        """The status in an object.

        Raises:
            Corrupted: when it is not a status, or not of the replica that its path names.
        """
        try:
            status = _STORED.validate_json(data)
        except ValueError as error:
            raise Corrupted(f"{path} in the pool's folder is not a status: {error}") from None
        if status.path != path:
            raise Corrupted(f"{path} in the pool's folder is the status of {status.replica!r}")
        return status


_STORED = TypeAdapter(ReplicaStatus)


def path_of(replica: str) -> str:
    """The object with a replica's status."""
    return f"{FOLDER}/{replica}.json"
