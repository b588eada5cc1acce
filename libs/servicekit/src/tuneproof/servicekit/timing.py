"""How long the stages of a call took: for the caller, as a metric, and as spans."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from prometheus_client import Histogram

from tuneproof.servicekit.tracing import span

SECONDS = Histogram(
    "tuneproof_stage_seconds",
    "Time of a stage within a call, in seconds.",
    ["service", "stage"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
)


class Stages:
    """Collects the seconds of named stages; a stage measured twice adds up.

    Args:
        service: as `judge`, for the metric `tuneproof_stage_seconds`; nothing is counted without.
    """

    def __init__(self, service: str = "") -> None:
        self._service = service
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time that the block takes to a stage, and makes it a span."""
        start = time.perf_counter()
        try:
            with span(stage):
                yield
        finally:
            self.add(stage, time.perf_counter() - start)

    def add(self, stage: str, seconds: float) -> None:
        """Adds seconds to a stage."""
        if self._service:
            SECONDS.labels(self._service, stage).observe(seconds)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def fill(self, stage_times: Any) -> None:
        """Appends the stages to a repeated field of StageTime messages of any service."""
        for stage, seconds in self.seconds.items():
            entry = stage_times.add(stage=stage)
            entry.duration.FromTimedelta(timedelta(seconds=seconds))
