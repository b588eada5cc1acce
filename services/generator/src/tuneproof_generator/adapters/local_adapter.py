"""One adapter on this replica: its record and its tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from tuneproof.adapters import AdapterRef
from tuneproof_generator.adapters.admission import AdmissionResult
from tuneproof_generator.adapters.lifecycle import AdapterRecord, AdapterState
from tuneproof_generator.engine.protocol import LoadedAdapter


class LocalAdapter:
    """What changes about one adapter; the loader reports its steps here.

    Args:
        changed: called with the reference after each change of the record.
    """

    def __init__(
        self,
        ref: AdapterRef,
        record: AdapterRecord,
        changed: Callable[[str], None],
        clock: Callable[[], datetime],
    ) -> None:
        self.ref = ref
        self.record = record
        self.loaded: LoadedAdapter | None = None
        """None unless the engine may hold it."""
        self.loading: asyncio.Task[None] | None = None
        self.removal: asyncio.Task[None] | None = None
        self.allow_no_effect = False
        """Its declaration allows that it changes nothing."""
        self.admitted: AdmissionResult | None = None
        """What admission found; None until it is verified."""
        self.gone = False
        self.awaits_eviction = False
        """It holds no capacity yet: once it is verified, an idle adapter is evicted for it."""
        self.is_victim = False
        """It is being evicted, and its capacity is reserved for a newcomer."""
        self.lacks_capacity = False
        """It FAILED because there was no capacity, and is tried again as soon as there is."""
        self._changed = changed
        self._clock = clock

    def update(self, record: AdapterRecord) -> None:
        """Takes a new record, and calls `changed`."""
        self.record = record
        self._changed(self.record.ref)

    def enter(self, state: AdapterState) -> None:
        """Takes a step of the lifecycle."""
        self.update(self.record.to(state, self._clock()))

    def fail(self, reason: str, *, wait: float | None = None) -> None:
        """Ends an attempt.

        Args:
            wait: seconds until the next attempt; None when another attempt cannot help.
        """
        self.awaits_eviction = False
        self.update(self.record.failed(self._clock(), reason, wait=wait))

    def begin_again(self, *, is_declared: bool) -> None:
        """Leaves FAILED.

        Args:
            is_declared: whether it was declared again; else it is time for the next attempt.
        """
        step = self.record.declared_again if is_declared else self.record.tried_again
        self.lacks_capacity = False
        self.update(step(self._clock()))

    def took(self, stage: str, seconds: float) -> None:
        self.record = self.record.took(stage, seconds)

    def inspected(self, result: AdmissionResult) -> None:
        self.admitted = result
        self.record = replace(
            self.record,
            rank=result.rank,
            size_bytes=result.size_bytes,
            trained_precision=result.trained_precision,
        )

    def compared(self, words: str) -> None:
        self.record = replace(self.record, fingerprint=words)
