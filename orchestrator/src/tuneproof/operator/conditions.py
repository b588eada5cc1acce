"""What is told of an object: its conditions and columns, from what its pool says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tuneproof.operator.objects import AdapterObject
from tuneproof.sdk import AdapterInfo, AliasInfo

READY, ALIASED = "Ready", "Aliased"
LONGEST_MESSAGE = 1024


@dataclass(frozen=True, slots=True)
class Seen:
    """A pool at one moment."""

    adapters: Mapping[str, AdapterInfo]
    """By reference."""
    aliases: Mapping[str, AliasInfo]
    """By name, without retired ones."""
    replicas: int
    """That live."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Whether something holds, and why."""

    status: str
    """`True`, `False` or `Unknown`."""
    reason: str
    """A word for machines."""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of an object."""

    ready: Condition
    aliased: Condition | None
    """None: the object names no alias."""
    counts: tuple[int, int] | None = None
    """Replicas that serve the adapter, of how many; None: the pool does not answer."""
    replicas: Mapping[str, str] = field(default_factory=dict)
    """The adapter's state on each."""


def unknown(spec_alias: str, problem: str) -> Told:
    """Of an object whose pool does not answer."""
    condition = Condition("Unknown", "PoolUnreachable", problem)
    return Told(condition, condition if spec_alias else None)


def ready_of(one: AdapterObject, seen: Seen, refused: str) -> Condition:
    """Whether every live replica of the pool serves the adapter.

    Args:
        refused: why the pool does not declare it; empty: it does.
    """
    info = seen.adapters.get(one.spec.ref)
    if info is None:
        if one.record.generation == one.generation:
            return Condition(
                "False",
                "Removed",
                "somebody removed it from the pool, or the pool evicted it; it is declared again"
                " when this object's spec changes, or when it is deleted and applied",
            )
        return Condition("False", "Refused" if refused else "Pending", refused)
    if info.ready:
        return Condition("True", READY, info.fingerprint)
    lags = {name: each for name, each in info.replicas.items() if each.state != "ready"}
    state = info.state if info.state != "ready" else next(iter(lags.values())).state
    said = [f"{name}: {each.state} {each.reason}".strip() for name, each in sorted(lags.items())]
    return Condition("False", state.capitalize(), "; ".join(said) or info.reason)


def aliased_of(
    one: AdapterObject, seen: Seen, refused: Condition | None, *, ready: bool
) -> Condition | None:
    """Whether the alias points where the object says; None without an alias.

    Args:
        refused: why it was not set now; None: it was, or nobody tried.
        ready: whether the adapter is.
    """
    name = one.spec.alias
    if not name:
        return None
    now = seen.aliases.get(name)
    if now is not None and now.target == one.spec.target:
        return Condition("True", "Set")
    if refused:
        return refused
    if one.record.alias_generation == one.generation:
        return Condition("False", "Moved", f"{where(name, now)}; {HOW_TO_MOVE}")
    return Condition("False", "NotSet" if ready else "AdapterNotReady", where(name, now))


HOW_TO_MOVE = (
    "to move it, change this object's spec, with expectedRef naming the adapter that it points to"
)


def where(name: str, now: AliasInfo | None) -> str:
    """Where an alias points, in words."""
    if now is None:
        return f"alias {name} points to no adapter"
    canary = f" and {now.canary_percent} % to {now.canary_ref}" if now.canary_ref else ""
    by = f" by {now.set_by}" if now.set_by else ""
    why = f": {now.reason}" if now.reason else ""
    return f"alias {name} points to {now.ref}{canary} since its version {now.version}{by}{why}"


def told_of(one: AdapterObject, seen: Seen, ready: Condition, aliased: Condition | None) -> Told:
    """All of it."""
    info = seen.adapters.get(one.spec.ref)
    states = {name: each.state for name, each in sorted(info.replicas.items())} if info else {}
    serving = sum(state == "ready" for state in states.values())
    return Told(ready, aliased, (serving, len(states) or seen.replicas), states)


def status_of(one: AdapterObject, told: Told, now: datetime) -> dict[str, Any]:
    """The object's status; None in place of what is not told."""
    conditions = {READY: told.ready} | ({ALIASED: told.aliased} if told.aliased else {})
    untrue = [each.reason for each in conditions.values() if each.status != "True"]
    ready, total = told.counts or (None, None)
    record = one.record
    return {
        "observedGeneration": record.generation or None,
        "aliasGeneration": record.alias_generation or None,
        "aliasVersion": record.alias_version or None,
        "declaredRefs": list(record.refs) or None,
        "ready": ready,
        "total": total,
        "reason": untrue[0] if untrue else READY,
        "replicas": [{"name": name, "state": state} for name, state in told.replicas.items()]
        or None,
        "conditions": [
            _condition(kind, each, one, now.astimezone(UTC)) for kind, each in conditions.items()
        ],
    }


def _condition(kind: str, told: Condition, one: AdapterObject, now: datetime) -> dict[str, Any]:
    before = next((old for old in one.status.get("conditions", ()) if old["type"] == kind), None)
    same = before is not None and before["status"] == told.status
    return {
        "type": kind,
        "status": told.status,
        "reason": told.reason,
        "message": told.message[:LONGEST_MESSAGE],
        "observedGeneration": one.generation,
        "lastTransitionTime": before["lastTransitionTime"]
        if same and before
        else now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
