"""How full a generator's batch is while a study has it answer, by the engine's own metrics."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

MAX_NUM_SEQS = 64
"""The generator's default."""
_RUNNING = re.compile(r"^vllm:num_requests_running(?:{[^}]*})? ([0-9.e+]+)$", re.MULTILINE)
_SECONDS = 0.25


@dataclass(frozen=True)
class Sample:
    """The sequences that run at a moment."""

    time: float
    """Of the wall clock."""
    running: float


@contextlib.contextmanager
def sampled(state: Path) -> Iterator[list[Sample]]:
    """Samples the generator of a state folder, whichever runs, until the context ends."""
    samples: list[Sample] = []
    over = threading.Event()

    def sample() -> None:
        announced = state / "services" / "generator.json"
        while not over.wait(_SECONDS):
            with contextlib.suppress(OSError, ValueError, KeyError):
                address = json.loads(announced.read_text())["metrics"]
                url = address if "://" in address else f"http://{address}/metrics"
                page = urllib.request.urlopen(url, timeout=1).read().decode()
                running = sum(map(float, _RUNNING.findall(page)))
                samples.append(Sample(time.time(), running))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def answers_by_base(state: Path) -> dict[str, list[float]]:
    """When each answer was kept, by the content of its base, in order; API models left out."""
    query = (
        "SELECT json_extract(inputs, '$.base'), created FROM results WHERE kind = 'answer'"
        " ORDER BY created"
    )
    found: dict[str, list[float]] = {}
    with contextlib.closing(sqlite3.connect(state / "study.sqlite")) as database:
        for base, created in database.execute(query):
            if str(base).startswith("sha256:"):
                found.setdefault(base, []).append(datetime.fromisoformat(created).timestamp())
    return found


def fullness(
    samples: Sequence[Sample], kept: Sequence[float], restarts: Sequence[tuple[float, float]]
) -> tuple[float, float, int]:
    """Mean running sequences, the mean of their share in what could run, and the samples.

    What could run is the smaller of the batch's limit and the answers that are left.

    Args:
        kept: when a base's answers were kept, in order.
        restarts: times between which the study was dead.
    """
    inside = [
        (one.running, min(MAX_NUM_SEQS, left))
        for one in samples
        if kept[0] <= one.time <= kept[-1]
        if not any(start <= one.time <= end for start, end in restarts)
        if (left := sum(each > one.time for each in kept))
    ]
    if not inside:
        return 0.0, 0.0, 0
    running = sum(each for each, _ in inside) / len(inside)
    # Requests that have answered and are not kept yet still count as left.
    shares = [min(1.0, each / could) for each, could in inside]
    return running, sum(shares) / len(shares), len(inside)
