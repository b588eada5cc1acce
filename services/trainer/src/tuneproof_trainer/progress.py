"""How far a run is: a line of JSON for each optimiser step."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One line of metrics.jsonl."""

    step: int
    """Optimiser steps done."""
    total_steps: int
    loss: float
    """Mean over the answers' tokens, in nats."""
    tokens_per_second: float
    """Prompt and answer tokens."""
    eta: float
    """Seconds to the end at the current speed."""
    validation_loss: float | None = None
    """After the step, in nats; None where it was not validated."""


class StepLog:
    """Writes metrics.jsonl, each line whole."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)

    def append(self, step: Step) -> None:
        """Adds a line, in one write."""
        os.write(self._handle, json.dumps(asdict(step)).encode() + b"\n")

    def close(self) -> None:
        """Closes the file."""
        os.close(self._handle)


class StepReader:
    """Follows metrics.jsonl: each `read` gives the new steps.

    A new attempt writes a new file, whose steps are given from the first on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = 0
        self._place = 0

    def read(self) -> list[Step]:
        """The steps that were written since the last call, oldest first."""
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._place:
                    self._inode, self._place = status.st_ino, 0
                file.seek(self._place)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self._place += len(whole) + len(newline)
        return [Step(**json.loads(line)) for line in whole.splitlines()]


def last_step(path: Path) -> Step | None:
    """The newest whole line, without reading the others."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 2048))
            whole = file.read().rpartition(b"\n")[0]
    except FileNotFoundError:
        return None
    return Step(**json.loads(whole.splitlines()[-1])) if whole else None
