"""Training data: JSON Lines, one conversation a line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tuneproof.adapters.storage import Storage
from tuneproof.servicekit.digests import sha256_of_bytes
from tuneproof.servicekit.errors import InvalidInput

_ROLES = frozenset({"system", "user", "assistant"})
_SHOWN = 10


@dataclass(frozen=True)
class Example:
    """One line of the data."""

    line: int
    """Counted from 1."""
    messages: tuple[dict[str, str], ...]
    """Each has `role` and `content`; the last is the assistant's."""


def load_examples(store: Storage, path: str, digest: str) -> list[Example]:
    """The examples at a path of the artifact store.

    Args:
        digest: `sha256:<hex>` of the file's bytes.

    Raises:
        InvalidInput: when there is no such file, it has another digest, or lines are wrong: the
            message names each line, the first ten in words.
        Unavailable: when the store does not answer.
    """
    if store.size(path) is None:
        raise InvalidInput(f"no data at {path} in the artifact store", field="spec.data.path")
    content = store.read(path)
    found = sha256_of_bytes(content)
    if found != digest:
        raise InvalidInput(
            f"the data at {path} has the digest {found}, not {digest}: it was changed, or the "
            "spec names another file",
            field="spec.data.digest",
        )
    return parse_examples(content, path)


def parse_examples(content: bytes, path: str) -> list[Example]:
    """The examples of a file's content; empty lines are skipped.

    Raises:
        InvalidInput: see `load_examples`.
    """
    examples: list[Example] = []
    mistakes: list[str] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            examples.append(Example(number, _messages(line)))
        except ValueError as error:
            mistakes.append(f"line {number} {error}")
    if mistakes:
        raise bad_lines(path, mistakes)
    if not examples:
        raise InvalidInput(f"{path} holds no example", field="spec.data.path")
    return examples


def bad_lines(path: str, mistakes: list[str]) -> InvalidInput:
    """The error that names what is wrong with which lines."""
    shown = "; ".join(mistakes[:_SHOWN])
    more = f"; and {len(mistakes) - _SHOWN} more" if len(mistakes) > _SHOWN else ""
    return InvalidInput(f"{path}: {shown}{more}", field="spec.data.path")


def _messages(line: bytes) -> tuple[dict[str, str], ...]:
    """Raises ValueError whose text goes on after "line 7"."""
    value = _parse(line)
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        raise ValueError('is not an object with a list "messages"')  # noqa: TRY004
    messages = value["messages"]
    for place, message in enumerate(messages, 1):
        match message:
            case {"role": str(role), "content": str(content)} if role in _ROLES:
                if not _is_unicode(content):
                    raise ValueError(
                        f"holds half a character (\\ud800 to \\udfff) in message {place}"
                    )
            case {"role": role, "content": str()}:
                raise ValueError(f"has the role {role!r} in message {place}")
            case _:
                raise ValueError(f'lacks "role" or "content" (text) in message {place}')
    if not messages or messages[-1]["role"] != "assistant":
        raise ValueError("does not end with the assistant's message")
    if len(messages) == 1:
        raise ValueError("has nothing before the assistant's message")
    if not messages[-1]["content"].strip():
        raise ValueError("has an empty answer")
    return tuple({"role": item["role"], "content": item["content"]} for item in messages)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line.decode())  # Of bytes it would guess UTF-16 too.
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at column {error.colno}") from None
    except (RecursionError, ValueError):
        raise ValueError(
            "is not readable JSON: nested too deep, or with too long a number"
        ) from None
