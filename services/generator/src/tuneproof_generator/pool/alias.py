"""Where an alias points, and where it is asked to point."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from tuneproof.adapters import AdapterRef
from tuneproof.servicekit.errors import InvalidInput

_NAME = re.compile(r"[a-z][a-z0-9.-]{0,62}")
_MAX_REASON = 1024


@dataclass(frozen=True)
class Target:
    """Where an alias is asked to point."""

    ref: AdapterRef | None
    """None retires it."""
    canary: AdapterRef | None = None
    canary_percent: int = 0
    """1 to 99 with a canary, else 0."""

    def __post_init__(self) -> None:
        if self.canary is None and self.canary_percent:
            raise InvalidInput(
                f"canary_percent is {self.canary_percent}, but there is no canary_ref",
                field="canary_percent",
            )
        if self.canary is not None and not 1 <= self.canary_percent <= 99:
            raise InvalidInput(
                f"canary_percent is {self.canary_percent}, not 1 to 99; for all requests set ref",
                field="canary_percent",
            )
        if self.canary is not None and self.ref in (None, self.canary):
            raise InvalidInput(
                "a canary needs a ref that serves the other requests, and is another adapter",
                field="canary_ref",
            )

    @property
    def refs(self) -> tuple[AdapterRef, ...]:
        """Target and canary, as far as they are set."""
        return tuple(ref for ref in (self.ref, self.canary) if ref is not None)


@dataclass(frozen=True)
class Alias:
    """Where an alias points, since its last change."""

    name: str
    ref: str
    """`name@sha256:<hex>`; empty in a change that retired the alias."""
    version: int
    """Counts the changes from 1."""
    reason: str
    time: datetime
    request_id: str = ""
    set_by: str = ""
    """Who set it."""
    canary_ref: str = ""
    """Serves a part of the requests; empty when `ref` serves all."""
    canary_percent: int = 0
    """1 to 99 with a canary, else 0."""

    @property
    def refs(self) -> tuple[str, ...]:
        """Target and canary, as far as they are set."""
        return tuple(filter(None, (self.ref, self.canary_ref)))

    @property
    def target(self) -> Target:
        """Where it points."""
        canary = AdapterRef.parse(self.canary_ref) if self.canary_ref else None
        return Target(AdapterRef.parse(self.ref) if self.ref else None, canary, self.canary_percent)

    def pick(self, draw: Callable[[], float]) -> str:
        """The reference that serves a request.

        Args:
            draw: gives a number from [0, 1); called only when there is a canary.
        """
        if self.canary_ref and draw() * 100 < self.canary_percent:
            return self.canary_ref
        return self.ref


def may_be_called(name: str) -> bool:
    """Whether an alias may have that name."""
    return _NAME.fullmatch(name) is not None


def check_alias(name: str, reason: str) -> None:
    """Raises InvalidInput unless an alias may have that name and that reason."""
    if not may_be_called(name):
        raise InvalidInput(
            f"alias {name!r} is not 1 to 63 characters of a-z, 0-9, `.` and `-`, beginning with a"
            " letter",
            field="alias",
        )
    if len(reason) > _MAX_REASON:
        raise InvalidInput(
            f"the reason has {len(reason)} characters, more than {_MAX_REASON}", field="reason"
        )
