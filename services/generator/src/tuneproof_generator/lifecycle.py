"""The life of an adapter on one replica, as an explicit machine.

    PENDING → FETCHING → VERIFYING → LOADING → READY
       ╰─────────┴───────────┴──────────┴────────┴──→ FAILED → PENDING (declared again)
    every one of them → DRAINING → gone

A record never changes; a step makes the next one. So what a watcher was given stays what it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from tuneproof.servicekit.errors import Internal


class State(StrEnum):
    """Where an adapter is in its life; the status is always what is true."""

    PENDING = "PENDING"
    FETCHING = "FETCHING"
    VERIFYING = "VERIFYING"
    LOADING = "LOADING"
    READY = "READY"
    DRAINING = "DRAINING"
    FAILED = "FAILED"


_NEXT: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.PENDING: frozenset({State.FETCHING, State.FAILED, State.DRAINING}),
        State.FETCHING: frozenset({State.VERIFYING, State.FAILED, State.DRAINING}),
        State.VERIFYING: frozenset({State.LOADING, State.FAILED, State.DRAINING}),
        State.LOADING: frozenset({State.READY, State.FAILED, State.DRAINING}),
        State.READY: frozenset({State.FAILED, State.DRAINING}),
        State.FAILED: frozenset({State.PENDING, State.DRAINING}),
        State.DRAINING: frozenset(),
    }
)

HOLDS_PLACE = frozenset(State) - {State.FAILED}
"""States in which an adapter takes one of the engine's places, or is about to."""


@dataclass(frozen=True)
class Transition:
    """One step."""

    state: State
    reason: str
    """Why; never empty for FAILED."""
    time: datetime
    """In UTC."""


@dataclass(frozen=True)
class AdapterRecord:
    """What is known of one adapter on this replica."""

    ref: str
    """`name@sha256:<hex>`."""
    transitions: tuple[Transition, ...]
    """Oldest first, since the last declaration; never empty."""
    required: bool = False
    """Readiness of the service waits for it."""
    rank: int = 0
    """Of its matrices; 0 until it is verified."""
    size_bytes: int = 0
    """Of its files; 0 until they are here."""
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds of `fetch`, `verify`, `load`, `warm`, as far as they are done."""

    @classmethod
    def declared(cls, ref: str, *, required: bool, now: datetime) -> AdapterRecord:
        """A record of a new declaration."""
        return cls(ref, (Transition(State.PENDING, "declared", now),), required)

    @property
    def state(self) -> State:
        """The state now."""
        return self.transitions[-1].state

    @property
    def reason(self) -> str:
        """Why it is in this state."""
        return self.transitions[-1].reason

    def to(self, state: State, now: datetime, *, reason: str = "") -> AdapterRecord:
        """The record one step later.

        Raises:
            Internal: when no arrow leads there, or a failure has no reason.
        """
        if state not in _NEXT[self.state]:
            raise Internal(f"adapter {self.ref} cannot go from {self.state} to {state}")
        if state is State.FAILED and not reason:
            raise Internal(f"adapter {self.ref} cannot fail without a reason")
        step = Transition(state, reason, now)
        if state is State.PENDING:
            return replace(self, transitions=(step,), stage_seconds={})
        return replace(self, transitions=(*self.transitions, step))

    def took(self, stage: str, seconds: float) -> AdapterRecord:
        """The record with the time of one more stage."""
        return replace(self, stage_seconds={**self.stage_seconds, stage: seconds})
