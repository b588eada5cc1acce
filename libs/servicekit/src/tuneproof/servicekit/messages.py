"""Between protobuf's messages and plain values, by field name.

    message_of  a message from a value class with fields of the same names
    value_from  a value class from a message
    values_of   the fields of a message that are set, as a mapping
    word_of     an enum's value as a lower-case word: `CORPUS_STATE_OPEN` is `open`

A message and a value class with equal field names need no table between them. Enums are words,
an unspecified one is empty; times are aware, durations are seconds, absent fields are None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_type_hints

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tuneproof.servicekit.errors import InvalidInput

M = TypeVar("M", bound=Message)
T = TypeVar("T")


def message_of(kind: type[M], source: object = None, **given: Any) -> M:
    """A message whose fields are the attributes of a value that have the same names.

    Args:
        given: fields by name; they win over the value's. A mapping for a repeated field of
            messages gives each message its first two fields.

    Raises:
        InvalidInput: for a word that a field's enum does not have, and for half a character.
    """
    message = kind()
    for field in message.DESCRIPTOR.fields:
        value = given[field.name] if field.name in given else getattr(source, field.name, None)
        if value is None:
            continue
        try:
            _put(message, field, value)
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"{field.name} holds half a character (a lone surrogate) at offset {error.start}",
                field=field.name,
            ) from None
    return message


def value_from(kind: type[T], message: Message, **given: Any) -> T:
    """A value of a dataclass whose fields are those of a message that have the same names.

    Args:
        given: fields by name; they win over the message's.
    """
    known = message.DESCRIPTOR.fields_by_name
    dataclass: Any = kind
    hints = _hints(dataclass)
    for one in fields(dataclass):
        if one.name in known and one.name not in given:
            given[one.name] = _take(message, known[one.name], hints[one.name])
    return kind(**given)


def values_of(message: Message) -> dict[str, Any]:
    """The fields that are set, by name: enums as words, repeated fields as tuples.

    Leaves out absent fields that tell presence (`optional`), empty lists, and an enum's 0, which is
    its `UNSPECIFIED`.

    Raises:
        InvalidInput: for an enum's number that this version does not know.
    """
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            if value:
                found[field.name] = dict(value) if is_map(field) else tuple(value)
        elif field.has_presence and not message.HasField(field.name):
            continue
        elif not field.enum_type:
            found[field.name] = value
        elif value:
            found[field.name] = _known_word(field, value)
    return found


def word_of(enum: Any, value: int) -> str:
    """A number of an enum (as `pb.Role`) as a lower-case word; an unknown number stays a number."""
    return word_of_enum(enum.DESCRIPTOR, value)


def _put(message: Message, field: Any, value: Any) -> None:
    place = getattr(message, field.name)
    if field.is_repeated:
        if field.message_type is None:
            place.extend(value)
        elif is_map(field):
            place.update(value)
        elif isinstance(value, Mapping):
            first, second = field.message_type.fields
            for pair in value.items():
                entry = place.add()
                _put(entry, first, pair[0])
                _put(entry, second, pair[1])
        else:
            place.extend(_as_message(field, each) for each in value)
    elif field.message_type is not None:
        place.CopyFrom(_as_message(field, value))
    else:
        is_word = field.enum_type and isinstance(value, str)
        setattr(message, field.name, _number_of(field.enum_type, value) if is_word else value)


def _as_message(field: Any, value: Any) -> Any:
    if isinstance(value, Message):
        return value
    made: Any = GetMessageClass(field.message_type)()
    match value:
        case datetime():
            made.FromDatetime(value)
        case float() | int():
            made.FromTimedelta(timedelta(seconds=max(value, 0.0)))
        case _:
            made = message_of(type(made), value)
    return made


def _take(message: Message, field: Any, hint: Any) -> Any:
    value = getattr(message, field.name)
    if field.is_repeated:
        if is_map(field):
            return dict(value)
        kind = get_args(hint)[0]
        return tuple(value_from(kind, each) if field.message_type else each for each in value)
    if is_dataclass(hint):
        return value_from(cast("type[Any]", hint), value)
    if field.has_presence and not message.HasField(field.name):
        return None
    if field.message_type is not None:
        return value.ToDatetime(tzinfo=UTC)
    if field.enum_type is not None:
        value = word_of_enum(field.enum_type, value) if value else ""
    return value


def is_map(field: Any) -> bool:
    """Whether a field of a descriptor is a map."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def word_of_enum(enum: Any, number: int) -> str:
    """A number of an enum's descriptor as `word_of` tells it."""
    prefix = _prefix(enum)
    known = enum.values_by_number.get(number)
    name: str = known.name if known else f"{prefix}_{number}"
    return name.removeprefix(f"{prefix}_").lower()


def _known_word(field: Any, number: int) -> str:
    enum = field.enum_type
    if number not in enum.values_by_number:
        raise InvalidInput(
            f"{field.name} {number} is not known here; known: {', '.join(words_of_enum(enum))}",
            field=field.name,
        )
    return word_of_enum(enum, number)


def _number_of(enum: Any, word: str) -> int:
    words, word = words_of_enum(enum), word.lower()
    if word not in words:
        kind = _prefix(enum).lower().replace("_", " ")
        raise InvalidInput(f"{kind} {word!r} is not known; known: {', '.join(words)}")
    return words[word]


@cache
def words_of_enum(enum: Any) -> Mapping[str, int]:
    """The words of an enum's descriptor with their numbers, all but the unspecified one."""
    return {word_of_enum(enum, value.number): value.number for value in enum.values if value.number}


@cache
def _prefix(enum: Any) -> str:
    """What buf's rules put before each of an enum's names: `SEARCH_MODE` for SearchMode."""
    name: str = enum.name
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper()
