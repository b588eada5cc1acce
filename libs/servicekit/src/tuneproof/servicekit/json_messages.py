"""Between JSON and protobuf's messages, and the JSON Schema of what is read and written.

    message_from_json  a message; unknown names and wrong types are refused by their place
    json_of            an object for a message
    schemas_of         JSON Schemas of a message's type and of all that it holds

Names are those of the contract. Enums are words, as everywhere outside of protobuf, durations are
seconds, 64-bit numbers are numbers. What is absent in a message is absent in its object; null is
nowhere. A `google.rpc.Status` is what `error_json` makes of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2

from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.messages import is_map, word_of_enum, words_of_enum
from tuneproof.servicekit.status import error_of
from tuneproof.servicekit.texts import is_unicode

M = TypeVar("M", bound=Message)
Schema = dict[str, Any]

_STATUS, _DURATION = "google.rpc.Status", "google.protobuf.Duration"
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_SHOWN = 100

ERROR_SCHEMA: Schema = {
    "type": "object",
    "required": ["status", "reason", "message"],
    "properties": {
        "status": {"type": "string", "description": "The code of google.rpc, as NOT_FOUND."},
        "reason": {"type": "string", "description": "A stable word for machines."},
        "message": {"type": "string", "description": "What was wrong, and what to do."},
        "field": {"type": "string", "description": "Where in the request, as references[0]."},
        "retry_after": {"type": "number", "description": "Seconds after which to ask again."},
    },
}


def error_json(status: status_pb2.Status) -> dict[str, Any]:
    """An object for a failure, of the schema ERROR_SCHEMA."""
    error = error_of(status)
    found: dict[str, Any] = {
        "status": code_pb2.Code.Name(code_pb2.Code.ValueType(status.code)),
        "reason": error.reason,
        "message": error.message,
    }
    if field := getattr(error, "field", ""):
        found["field"] = field
    if (seconds := getattr(error, "retry_after", None)) is not None:
        found["retry_after"] = seconds
    return found


def json_of(message: Any) -> dict[str, Any]:
    """An object for a message; numbers, texts and lists are there even where they are empty."""
    if isinstance(message, status_pb2.Status):
        return error_json(message)
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if is_map(field):
            kind = field.message_type.fields_by_name["value"]
            found[field.name] = {str(key): _written(kind, one) for key, one in value.items()}
        elif field.is_repeated:
            found[field.name] = [_written(field, one) for one in value]
        elif message.HasField(field.name) if field.has_presence else value or not field.enum_type:
            found[field.name] = _written(field, value)
    return found


def _written(field: Any, value: Any) -> Any:
    if field.enum_type is not None:
        return word_of_enum(field.enum_type, value)
    if field.message_type is None:
        return value
    return value.ToNanoseconds() / 1e9 if _name(field) == _DURATION else json_of(value)


def message_from_json(kind: type[M], value: object, *, at: str = "") -> M:
    """A message of an object as `json.loads` reads it.

    Args:
        at: where the object stands in the request, for messages.

    Raises:
        InvalidInput: naming the place.
    """
    message = kind()
    _fill(message, value, at)
    return message


def _fill(message: Any, value: object, at: str) -> None:
    if not isinstance(value, Mapping):
        raise _wrong(at, value, "an object")
    fields = message.DESCRIPTOR.fields_by_name
    for name, given in value.items():
        place = f"{at}.{name[:_SHOWN]}" if at else name[:_SHOWN]
        field = fields.get(name)
        if field is None:
            raise InvalidInput(
                f"{place!r} is not known here; known: {', '.join(fields)}", field=place
            )
        target = getattr(message, name)
        if is_map(field):
            _fill_map(target, field, given, place)
        elif field.is_repeated:
            if not isinstance(given, list):
                raise _wrong(place, given, "a list")
            for number, one in enumerate(given):
                if field.message_type is not None:
                    _fill(target.add(), one, f"{place}[{number}]")
                else:
                    target.append(_read(field, one, f"{place}[{number}]"))
        elif field.message_type is not None:
            target.SetInParent()
            _fill(target, given, place)
        else:
            setattr(message, name, _read(field, given, place))


def _fill_map(target: Any, field: Any, given: object, place: str) -> None:
    if not isinstance(given, Mapping):
        raise _wrong(place, given, "an object")
    key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    for name, one in given.items():
        at = f"{place}.{name[:_SHOWN]}"
        target[_read(key, _value_of(key, name), at)] = _read(value, one, at)


def values_of_texts(kind: Any, texts: Mapping[str, str]) -> dict[str, Any]:
    """What `message_from_json` reads, of a query's texts by the names of a message's fields."""
    fields = kind.fields_by_name
    return {name: _value_of(fields.get(name), text) for name, text in texts.items()}


def _value_of(field: Any, text: str) -> int | str:
    digits = text.isascii() and text.isdecimal() and len(text) <= _SHOWN
    return int(text) if digits and field is not None and field.cpp_type in _RANGES else text


def _read(field: Any, value: Any, at: str) -> Any:
    if field.enum_type is not None:
        words = words_of_enum(field.enum_type)
        if not isinstance(value, str) or value not in words:
            raise _wrong(at, value, f"one of {', '.join(words)}")
        return words[value]
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return _text(value, at)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if not isinstance(value, bool):
            raise _wrong(at, value, "true or false")
        return value
    return _number(field, value, at)


def _number(field: Any, value: Any, at: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(at, value, "a number")
    if field.cpp_type not in _RANGES:
        try:
            finite = math.isfinite(float(value))
        except OverflowError:
            finite = False
        if not finite:
            raise _wrong(at, value, "a number of 64 bits")
        return float(value)
    low, high = _RANGES[field.cpp_type]
    if value != value // 1 or not low <= value <= high:
        raise _wrong(at, value, f"a whole number from {low} to {high}")
    return int(value)


def _text(value: object, at: str) -> str:
    if not isinstance(value, str):
        raise _wrong(at, value, "a text")
    if not is_unicode(value):
        raise InvalidInput(f"{at} holds half a character (a lone surrogate)", field=at)
    return value


def _wrong(at: str, value: object, wanted: str) -> InvalidInput:
    shown = "null" if value is None else ascii(value)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]} …"
    return InvalidInput(f"{at or 'the request'} is {shown}, not {wanted}", field=at)


def schemas_of(kind: Descriptor, *, written: bool) -> dict[str, Schema]:
    """JSON Schemas by the names of message types, this one and all that it holds.

    Args:
        written: of what `json_of` writes; else of what `message_from_json` reads.
    """
    found: dict[str, Schema] = {}
    _describe(kind, found, written=written)
    return found


def _describe(kind: Any, found: dict[str, Schema], *, written: bool) -> None:
    if kind.name in found or kind.full_name == _DURATION:
        return
    if kind.full_name == _STATUS:
        found["Error"] = ERROR_SCHEMA
        return
    schema = found[kind.name] = {
        "type": "object",
        "properties": {field.name: field_schema(field) for field in kind.fields},
        "additionalProperties": False,
    }
    if written:
        schema["required"] = [
            field.name
            for field in kind.fields
            if field.is_repeated or not (field.has_presence or field.enum_type)
        ]
    for field in kind.fields:
        if field.message_type is not None and not is_map(field):
            _describe(field.message_type, found, written=written)


def field_schema(field: Any) -> Schema:
    """Of a field's value; types of messages are references to components of OpenAPI."""
    if is_map(field):
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        digits = {"propertyNames": {"pattern": "^[0-9]{1,9}$"}} if key.cpp_type in _RANGES else {}
        return {"type": "object", **digits, "additionalProperties": _schema(value)}
    return {"type": "array", "items": _schema(field)} if field.is_repeated else _schema(field)


def _schema(field: Any) -> Schema:
    if field.enum_type is not None:
        return {"type": "string", "enum": list(words_of_enum(field.enum_type))}
    if field.message_type is not None:
        if _name(field) == _DURATION:
            return {"type": "number", "description": "Seconds."}
        name = "Error" if _name(field) == _STATUS else field.message_type.name
        return {"$ref": f"#/components/schemas/{name}"}
    if field.cpp_type in _RANGES:
        low, high = _RANGES[field.cpp_type]
        return {"type": "integer", "minimum": low, "maximum": high}
    kinds = {
        FieldDescriptor.CPPTYPE_STRING: "string",
        FieldDescriptor.CPPTYPE_BOOL: "boolean",
    }
    return {"type": kinds.get(field.cpp_type, "number")}


def _name(field: Any) -> str:
    return str(field.message_type.full_name)
