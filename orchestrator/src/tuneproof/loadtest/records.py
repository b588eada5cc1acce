"""Requests, replies and swaps of a load test, with their times.

Every time is in seconds of one monotonic clock of this process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Side = Literal["quiet", "swap", "base"]

BASE = "base"
"""The base model's name where adapters have their references."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, before it is sent."""

    due: float
    """Seconds after its phase begins."""
    model: str
    """A reference, an alias, or a model's name; empty: the base model."""
    prompt: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request."""

    text: str
    tokens: int
    """Of the answer."""
    served: str | None
    """Reference of the adapter that served; empty: the base model; None: unknown."""
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    """The server's own times: `queue`, `first_token`, `decode`."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One finished request."""

    model: str
    prompt: str
    due: float
    """When it should have been sent. Latencies count from here, so that neither a slow load
    generator nor a server that makes it wait can hide a delay."""
    sent: float
    first: float | None
    """Time of its first token, if any."""
    done: float
    answer: Answer | None
    error: str = ""
    """Why it got no answer."""
    wrong: str = ""
    """Why the answer cannot be the asked adapter's."""
    checked: tuple[str, ...] = ()
    """What of the answer was compared: `digest`, `text`."""

    @property
    def first_seconds(self) -> float | None:
        """From due time to the first token."""
        return None if self.first is None else self.first - self.due

    @property
    def whole_seconds(self) -> float:
        """From due time to the end."""
        return self.done - self.due


@dataclass(frozen=True, slots=True)
class Swap:
    """New content behind one alias: declared, READY, alias moved, the old one removed."""

    alias: str
    old: str
    new: str
    started: float
    states: tuple[tuple[str, float], ...] = ()
    """States of the new adapter on the replica that answers, as reported."""
    ready: float | None = None
    """READY on every live replica."""
    first_seconds: float | None = None
    """First token of the first request to it after READY."""
    warm_seconds: float | None = None
    """First token of a second request of the same length, right after."""
    moved: float | None = None
    removed: float | None = None
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    """The server's own: `fetch`, `verify`, `load`, `warm`."""
    error: str = ""
    """Why it failed."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A piece of the test under one kind of load."""

    side: Side
    """Without swaps, with them, or the base model alone."""
    load: Literal["open", "full"]
    """Arrivals at a rate; or a constant number of requests in flight."""
    round: int
    """Counts from 1."""
    start: float
    end: float
    """Nothing is sent after it."""
    replies: tuple[Reply, ...]
    swaps: tuple[Swap, ...] = ()
    direct: tuple[Reply, ...] = ()
    """The swaps' own requests to new adapters; not part of the load."""

    @property
    def seconds(self) -> float:
        """How long requests were sent."""
        return self.end - self.start

    @property
    def all_replies(self) -> tuple[Reply, ...]:
        """Those of the load, and those to the swaps' own requests."""
        return (*self.replies, *self.direct)
