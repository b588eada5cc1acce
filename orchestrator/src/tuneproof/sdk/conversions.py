"""Stage times as services tell them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def seconds_of(stage_times: Iterable[Any]) -> dict[str, float]:
    """Seconds by stage; a stage that is listed twice adds up."""
    seconds: dict[str, float] = {}
    for entry in stage_times:
        spent = entry.duration.ToTimedelta().total_seconds()
        seconds[entry.stage] = seconds.get(entry.stage, 0.0) + spent
    return seconds
