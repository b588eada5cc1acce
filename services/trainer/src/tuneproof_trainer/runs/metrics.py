"""A run's losses in the artifact store: segments of 500 steps, a line of JSON for each step.

A segment is written anew while it fills. An attempt that goes on from a checkpoint replaces what an
earlier one wrote after it. So each step has one place, and a reader that follows a run reads the
newest segment only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from tuneproof.adapters import ObjectStore
from tuneproof.servicekit.errors import NotFound
from tuneproof_trainer.progress import Step

SEGMENT = 500
"""Steps of a segment."""


class Metrics:
    """The losses of one run.

    Args:
        folder: of the run, in the store.
    """

    def __init__(self, store: ObjectStore, folder: str) -> None:
        self._store = store
        self._folder = f"{folder}/metrics"
        self._written: list[Step] = []
        """The segment that was written last."""

    def read(self, after: int = 0) -> list[Step]:
        """The steps after a number, oldest first; blocks."""
        found: list[Step] = []
        number = after // SEGMENT
        while True:
            segment = self._read(number)
            found += [step for step in segment if step.step > after]
            if not segment or segment[-1].step < (number + 1) * SEGMENT:
                return found
            number += 1

    def write(self, steps: Sequence[Step]) -> None:
        """Adds consecutive steps, in place of what follows them in their segments; blocks."""
        by_segment: dict[int, list[Step]] = {}
        for step in steps:
            by_segment.setdefault((step.step - 1) // SEGMENT, []).append(step)
        for number, new in by_segment.items():
            if self._written and self._written[-1].step + 1 == new[0].step:
                before = self._written
            else:
                before = self._read(number)
            first = number * SEGMENT
            whole = [step for step in before if first < step.step < new[0].step] + new
            lines = (json.dumps(asdict(step)) for step in whole)
            self._store.write(self._path(number), "".join(f"{line}\n" for line in lines).encode())
            self._written = whole

    def _read(self, number: int) -> list[Step]:
        try:
            content = self._store.read(self._path(number))
        except NotFound:
            return []
        return [Step(**json.loads(line)) for line in content.splitlines()]

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:06d}.jsonl"
