"""One adapter of the pool: its record, its tasks, and what its loading reports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from tuneproof.adapters import AdapterRef
from tuneproof_generator.engine import LoadedAdapter
from tuneproof_generator.lifecycle import AdapterRecord, State
from tuneproof_generator.loading import Inspected


def now() -> datetime:
    """The time now, in UTC."""
    return datetime.now(UTC)


class Entry:
    """What changes about one adapter; also the progress that its loading reports."""

    def __init__(
        self, ref: AdapterRef, record: AdapterRecord, changed: Callable[[str], None]
    ) -> None:
        self.ref = ref
        self.record = record
        self.adapter: LoadedAdapter | None = None
        self.loading: asyncio.Task[None] | None = None
        self.removal: asyncio.Task[None] | None = None
        self.gone = False
        self._changed = changed

    def update(self, record: AdapterRecord) -> None:
        self.record = record
        self._changed(self.record.ref)

    def enter(self, state: State) -> None:
        self.update(self.record.to(state, now()))

    def fail(self, reason: str) -> None:
        self.update(self.record.to(State.FAILED, now(), reason=reason))

    def took(self, stage: str, seconds: float) -> None:
        self.record = self.record.took(stage, seconds)

    def inspected(self, facts: Inspected) -> None:
        self.record = replace(self.record, rank=facts.rank, size_bytes=facts.size_bytes)

    def handed_over(self, adapter: LoadedAdapter) -> None:
        self.adapter = adapter
