"""An object of the kind `Adapter`, as the cluster has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

GROUP, VERSION, PLURAL = "tuneproof.dev", "v1alpha1", "adapters"


@dataclass(frozen=True, slots=True)
class Spec:
    """What somebody declares. The cluster has checked it."""

    ref: str
    pool: str
    """The pool's name in the cluster: that of its Service."""
    alias: str = ""
    expected_ref: str = ""
    """From where the alias may be moved if somebody else set it."""
    canary_ref: str = ""
    canary_percent: int = 0
    required: bool = False
    retain: bool = False
    """Deleting the object leaves adapter and alias as they are."""

    @property
    def target(self) -> tuple[str, str, int]:
        """Where the alias is to point, as `AliasInfo.target`."""
        return self.ref, self.canary_ref, self.canary_percent

    @property
    def refs(self) -> frozenset[str]:
        """The adapters that it names."""
        return frozenset(filter(None, (self.ref, self.canary_ref)))


@dataclass(frozen=True, slots=True)
class Record:
    """What the operator has done for an object; the object's status keeps it."""

    generation: int = 0
    """The object's generation that was declared to the pool; 0: none."""
    alias_generation: int = 0
    """The one of which the alias was set."""
    alias_version: int = 0
    """The alias's version that did it."""
    refs: tuple[str, ...] = ()
    """Adapters that were declared for the object, and not removed since."""


@dataclass(frozen=True, slots=True)
class AdapterObject:
    """One object."""

    name: str
    uid: str
    generation: int
    """Counts the changes of its spec."""
    version: int
    """Counts all changes in the cluster; the greater is the newer."""
    created: str
    spec: Spec
    record: Record
    status: Mapping[str, Any]

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Reads what the API gives."""
        meta, spec, status = body["metadata"], body["spec"], body.get("status") or {}
        canary = spec.get("canary", {})
        return cls(
            name=meta["name"],
            uid=meta["uid"],
            generation=meta["generation"],
            version=int(meta["resourceVersion"]),
            created=meta["creationTimestamp"],
            spec=Spec(
                ref=spec["ref"],
                pool=spec["pool"],
                alias=spec.get("alias", ""),
                expected_ref=spec.get("expectedRef", ""),
                canary_ref=canary.get("ref", ""),
                canary_percent=canary.get("percent", 0),
                required=spec.get("required", False),
                retain=spec.get("deletionPolicy") == "Retain",
            ),
            record=Record(
                generation=status.get("observedGeneration", 0),
                alias_generation=status.get("aliasGeneration", 0),
                alias_version=status.get("aliasVersion", 0),
                refs=tuple(status.get("declaredRefs", ())),
            ),
            status=status,
        )

    @property
    def age(self) -> tuple[str, str]:
        """Sorts the oldest first."""
        return self.created, self.name

    def recorded(self, **changes: Any) -> Self:
        """The same with a changed record."""
        return replace(self, record=replace(self.record, **changes))
