"""One adapter of the pool: its record, its tasks, and what its loading reports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from tuneproof.adapters import AdapterRef
from tuneproof_generator.adapters.lifecycle import AdapterRecord, State
from tuneproof_generator.adapters.loading import Inspected
from tuneproof_generator.engine.protocol import LoadedAdapter


def now() -> datetime:
    """The time now, in UTC."""
    return datetime.now(UTC)


class Entry:
    """What changes about one adapter; also the progress that its loading reports."""

    def __init__(
        self,
        ref: AdapterRef,
        record: AdapterRecord,
        changed: Callable[[str], None],
        clock: Callable[[], datetime],
    ) -> None:
        self.ref = ref
        self.record = record
        self.adapter: LoadedAdapter | None = None
        self.loading: asyncio.Task[None] | None = None
        self.removal: asyncio.Task[None] | None = None
        self.gone = False
        # It holds no place yet: when it is verified, one is taken from an idle adapter.
        self.is_heir = False
        # Its place belongs to an heir that waits for it to be gone.
        self.is_promised = False
        # It FAILED for want of a place, and is tried again as soon as there is one.
        self.lacks_place = False
        self._changed = changed
        self._clock = clock

    def update(self, record: AdapterRecord) -> None:
        self.record = record
        self._changed(self.record.ref)

    def enter(self, state: State) -> None:
        self.update(self.record.to(state, self._clock()))

    def fail(self, reason: str, *, wait: float | None = None) -> None:
        """Ends a try; the next one comes after so many seconds, if it can help at all."""
        self.is_heir = False
        self.update(self.record.failed(self._clock(), reason, wait=wait))

    def begin_again(self, *, is_declared: bool) -> None:
        """Leaves FAILED, because it was declared again or because it is time for the next try."""
        step = self.record.declared_again if is_declared else self.record.tried_again
        self.lacks_place = False
        self.update(step(self._clock()))

    def took(self, stage: str, seconds: float) -> None:
        self.record = self.record.took(stage, seconds)

    def inspected(self, facts: Inspected) -> None:
        self.record = replace(self.record, rank=facts.rank, size_bytes=facts.size_bytes)

    def handed_over(self, adapter: LoadedAdapter) -> None:
        self.adapter = adapter
