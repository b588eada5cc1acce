"""Between protobuf's messages and plain values, by field name.

    values_of   a message's fields as a mapping
    set_values  puts a mapping's values into a message
    word_of     an enum's value as a lower-case word: `CORPUS_STATE_OPEN` is `open`
    value_of    and back

So a message and a value class with equal field names need no table between them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from tuneproof.servicekit.errors import InvalidInput


def values_of(message: Message) -> dict[str, Any]:
    """The fields that are set, by name: enums as words, repeated fields as tuples.

    A field that tells presence (`optional`) and is absent is left out, as are an empty list and an
    enum's 0, which is its `UNSPECIFIED`.

    Raises:
        InvalidInput: for an enum's number that this version does not know.
    """
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            if value:
                found[field.name] = tuple(value)
        elif field.has_presence and not message.HasField(field.name):
            continue
        elif not field.enum_type:
            found[field.name] = value
        elif value:
            found[field.name] = _known_word(field, value)
    return found


def set_values(message: Message, values: Mapping[str, Any]) -> None:
    """Sets the fields of these names; the rest stays as it is.

    Raises:
        InvalidInput: for a word that a field's enum does not have.
    """
    for name, value in values.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        if field.is_repeated:
            getattr(message, name).extend(value)
        else:
            setattr(message, name, _number_of(field.enum_type, value) if field.enum_type else value)


def word_of(enum: Any, value: int) -> str:
    """A number of an enum (as `pb.Role`) as a lower-case word; one that is not known is the number
    after the enum's name."""
    return _word(enum.DESCRIPTOR, value)


def value_of(enum: Any, word: str) -> Any:
    """The number of a lower-case word.

    Raises:
        InvalidInput: for a word that the enum does not have; `unspecified` is none.
    """
    return _number_of(enum.DESCRIPTOR, word)


def _word(enum: Any, number: int) -> str:
    prefix = _prefix(enum)
    known = enum.values_by_number.get(number)
    name: str = known.name if known else f"{prefix}_{number}"
    return name.removeprefix(f"{prefix}_").lower()


def _known_word(field: Any, number: int) -> str:
    enum = field.enum_type
    if number not in enum.values_by_number:
        raise InvalidInput(
            f"{field.name} {number} is not known here; known: {', '.join(_words(enum))}",
            field=field.name,
        )
    return _word(enum, number)


def _number_of(enum: Any, word: str) -> int:
    words = _words(enum)
    if word not in words:
        kind = _prefix(enum).lower().replace("_", " ")
        raise InvalidInput(f"{word!r} is no {kind}; known: {', '.join(words)}")
    return words[word]


def _words(enum: Any) -> dict[str, int]:
    return {_word(enum, value.number): value.number for value in enum.values if value.number}


def _prefix(enum: Any) -> str:
    """What buf's rules put before each of an enum's names: `SEARCH_MODE` for SearchMode."""
    name: str = enum.name
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper()
