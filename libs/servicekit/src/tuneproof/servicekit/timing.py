"""How long the stages of a call took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any


class Stages:
    """Collects the seconds of named stages; a stage measured twice adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time that the block takes to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start)

    def add(self, stage: str, seconds: float) -> None:
        """Adds seconds to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def fill(self, stage_times: Any) -> None:
        """Appends the stages to a repeated field of StageTime messages of any service."""
        for stage, seconds in self.seconds.items():
            entry = stage_times.add(stage=stage)
            entry.duration.FromTimedelta(timedelta(seconds=seconds))
