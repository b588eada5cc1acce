"""Between protobuf's well-known types and Python's own."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, cast

from google.protobuf.message import Message

from tuneproof.servicekit.errors import InvalidInput


def word_of(enum: Any, value: int, prefix: str) -> str:
    """An enum's value as a lower-case word: `CORPUS_STATE_OPEN` is `open`."""
    name = enum.Name(value) if value in enum.values() else f"{prefix}_{value}"
    return cast("str", name).removeprefix(f"{prefix}_").lower()


def value_of(enum: Any, word: str, prefix: str) -> Any:
    """The enum's value of a lower-case word.

    Raises:
        InvalidInput: for a word that the enum does not have; `unspecified` is none.
    """
    words = [word_of(enum, value, prefix) for value in enum.values() if value]
    if word not in words:
        kind = prefix.lower().replace("_", " ")
        raise InvalidInput(f"{word!r} is no {kind}; known: {', '.join(words)}")
    return enum.Value(f"{prefix}_{word.upper()}")


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
