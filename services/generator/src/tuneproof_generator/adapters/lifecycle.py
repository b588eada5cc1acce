"""The life of an adapter on one replica, as an explicit machine.

    PENDING → FETCHING → VERIFYING → LOADING → READY
       ╰─────────┴───────────┴──────────┴────────┴──→ FAILED → PENDING (declared, or tried, again)
    each of them → DRAINING → gone

A record never changes; a step makes the next one. So a watcher's copy stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from tuneproof.servicekit.errors import Internal


class AdapterState(StrEnum):
    """Where an adapter is in its life."""

    PENDING = "PENDING"
    FETCHING = "FETCHING"
    VERIFYING = "VERIFYING"
    LOADING = "LOADING"
    READY = "READY"
    DRAINING = "DRAINING"
    FAILED = "FAILED"


_END = frozenset({AdapterState.FAILED, AdapterState.DRAINING})
_NEXT: Mapping[AdapterState, frozenset[AdapterState]] = MappingProxyType(
    {
        AdapterState.PENDING: _END | {AdapterState.FETCHING},
        AdapterState.FETCHING: _END | {AdapterState.VERIFYING},
        AdapterState.VERIFYING: _END | {AdapterState.LOADING},
        AdapterState.LOADING: _END | {AdapterState.READY},
        AdapterState.READY: _END,
        AdapterState.FAILED: frozenset({AdapterState.PENDING, AdapterState.DRAINING}),
        AdapterState.DRAINING: frozenset(),
    }
)

HOLDS_CAPACITY = frozenset(AdapterState) - {AdapterState.FAILED}
"""States in which an adapter takes some of the engine's capacity, or is about to."""
_KEPT_TRANSITIONS = 32


@dataclass(frozen=True)
class Transition:
    """A step into a state, with its reason and time."""

    state: AdapterState
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
    """Oldest first, since the last declaration, the last 32 of them; never empty."""
    required: bool = False
    """Readiness of the service waits for it."""
    rank: int = 0
    """Of its matrices; 0 until it is verified."""
    size_bytes: int = 0
    """Of its files; 0 until they are here."""
    trained_precision: str = ""
    """Of the base in training, in words; empty until it is verified, or when nothing tells it."""
    fingerprint: str = ""
    """What comparing its effect with that in training found, in words; empty until it is READY."""
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds of `fetch`, `verify`, `load`, `warm`, as far as they are done."""
    tries: int = 0
    """How often it FAILED since the last declaration."""
    next_try: datetime | None = None
    """In UTC; None unless it FAILED in a way that may pass. The reason has it too."""

    @classmethod
    def declared(cls, ref: str, *, required: bool, now: datetime) -> AdapterRecord:
        """A record of a new declaration."""
        return cls(ref, (Transition(AdapterState.PENDING, "declared", now),), required)

    @property
    def state(self) -> AdapterState:
        """The state now."""
        return self.transitions[-1].state

    @property
    def reason(self) -> str:
        """Why it is in this state."""
        return self.transitions[-1].reason

    def to(self, state: AdapterState, now: datetime, *, reason: str = "") -> AdapterRecord:
        """The record one step later.

        Raises:
            Internal: when no arrow leads there, or a failure has no reason.
        """
        if state not in _NEXT[self.state]:
            raise Internal(f"adapter {self.ref} cannot go from {self.state} to {state}")
        if state is AdapterState.FAILED and not reason:
            raise Internal(f"adapter {self.ref} cannot fail without a reason")
        step = Transition(state, reason, now)
        steps = (*self.transitions, step)[-_KEPT_TRANSITIONS:]
        return replace(self, transitions=steps, next_try=None)

    def declared_again(self, now: datetime) -> AdapterRecord:
        """The record of a FAILED adapter that begins anew."""
        step = self.to(AdapterState.PENDING, now, reason="declared again")
        return replace(
            step, transitions=step.transitions[-1:], stage_seconds={}, fingerprint="", tries=0
        )

    def tried_again(self, now: datetime) -> AdapterRecord:
        """The record of a FAILED adapter that is tried once more."""
        step = self.to(AdapterState.PENDING, now, reason=f"tried again, after: {self.reason}")
        return replace(step, stage_seconds={}, fingerprint="")

    def failed(self, now: datetime, reason: str, *, wait: float | None = None) -> AdapterRecord:
        """The record of a failure.

        Args:
            wait: seconds until it is tried again; None if that cannot help.
        """
        tries = self.tries + 1
        next_try = None
        if wait is not None:
            next_try = now + timedelta(seconds=wait)
            reason = f"{reason} (try {tries}; the next one at {next_try:%H:%M:%S} UTC)"
        step = self.to(AdapterState.FAILED, now, reason=reason)
        return replace(step, tries=tries, next_try=next_try)

    def took(self, stage: str, seconds: float) -> AdapterRecord:
        """The record with the time of one more stage."""
        return replace(self, stage_seconds={**self.stage_seconds, stage: seconds})
