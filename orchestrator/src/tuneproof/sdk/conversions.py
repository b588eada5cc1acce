"""Between protobuf's well-known types and Python's own."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, cast

from google.protobuf.message import Message


def time_of(message: Message, field: str) -> datetime | None:
    """A timestamp field as aware UTC time; None when it is absent."""
    if not message.HasField(field):
        return None
    return cast("datetime", getattr(message, field).ToDatetime(tzinfo=UTC))


def seconds_of(stage_times: Iterable[Any]) -> dict[str, float]:
    """Seconds by stage; a stage that is listed twice adds up."""
    seconds: dict[str, float] = {}
    for entry in stage_times:
        spent = entry.duration.ToTimedelta().total_seconds()
        seconds[entry.stage] = seconds.get(entry.stage, 0.0) + spent
    return seconds
