"""Training data: JSON Lines, one conversation a line; and its division for validation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuneproof.adapters.storage import Storage
from tuneproof.servicekit.digests import sha256_of_bytes, sha256_of_json
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.texts import is_unicode

_ROLES = frozenset({"system", "user", "assistant"})
_SHOWN = 10


@dataclass(frozen=True)
class Example:
    """One line of the data."""

    line: int
    """Counted from 1."""
    messages: tuple[dict[str, str], ...]
    """Each has `role` and `content`; the last is the assistant's."""
    id: str = ""
    """What the line calls it; empty where it does not."""

    @property
    def prompt(self) -> list[list[str]]:
        """Role and content of all but the answer."""
        return [[said["role"], said["content"]] for said in self.messages[:-1]]


def load_examples(store: Storage, path: str, digest: str, *, part: str = "data") -> list[Example]:
    """The examples at a path of the artifact store.

    Args:
        digest: `sha256:<hex>` of the file's bytes.
        part: of the spec, for messages.

    Raises:
        InvalidInput: when there is no such file, it has another digest, or lines are wrong: the
            message names each line, the first ten in words.
        Unavailable: when the store does not answer.
    """
    return parse_examples(read_lines(store, path, digest, part=part), path, part=part)


def read_lines(store: Storage, path: str, digest: str, *, part: str) -> bytes:
    """A file of the artifact store.

    Raises:
        InvalidInput: when there is no such file, or it has another digest.
        Unavailable: when the store does not answer.
    """
    if store.size(path) is None:
        raise InvalidInput(f"no {part} at {path} in the artifact store", field=f"spec.{part}.path")
    content = store.read(path)
    found = sha256_of_bytes(content)
    if found != digest:
        raise InvalidInput(
            f"the {part} at {path} has the digest {found}, not {digest}: it was changed, or the "
            "spec names another file",
            field=f"spec.{part}.digest",
        )
    return content


def parse_examples(content: bytes, path: str, *, part: str = "data") -> list[Example]:
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
            value = _parse(line)
            examples.append(Example(number, _messages(value), _id(value)))
        except ValueError as error:
            mistakes.append(f"line {number} {error}")
    if mistakes:
        raise bad_lines(path, mistakes, part=part)
    if not examples:
        raise InvalidInput(f"{path} holds no example", field=f"spec.{part}.path")
    return examples


def bad_lines(path: str, mistakes: list[str], *, part: str = "data") -> InvalidInput:
    """The error that names what is wrong with which lines."""
    shown = "; ".join(mistakes[:_SHOWN])
    more = f"; and {len(mistakes) - _SHOWN} more" if len(mistakes) > _SHOWN else ""
    return InvalidInput(f"{path}: {shown}{more}", field=f"spec.{part}.path")


def divide_examples(
    examples: Sequence[Example], share: float
) -> tuple[list[Example], list[Example]]:
    """Examples to train on, and to validate on, in the order of the file.

    Examples with the same prompt stay together. Which are chosen depends on the texts only, so it
    is the same for every seed and order of lines.

    Args:
        share: of the examples that validate, above 0 and below 1.

    Raises:
        InvalidInput: when there are not two different prompts.
    """
    ranks = {example.line: sha256_of_json(example.prompt) for example in examples}
    groups = sorted(set(ranks.values()))
    if len(groups) < 2:
        raise InvalidInput(
            "validation_share needs examples with two different prompts or more; all have the same",
            field="spec.hyperparameters.validation_share",
        )
    wanted = share * len(examples)
    sizes = dict.fromkeys(groups, 0)
    for rank in ranks.values():
        sizes[rank] += 1
    chosen: set[str] = set()
    taken = 0
    for group in groups[:-1]:
        if chosen and taken + sizes[group] / 2 > wanted:
            break
        chosen.add(group)
        taken += sizes[group]
    return (
        [example for example in examples if ranks[example.line] not in chosen],
        [example for example in examples if ranks[example.line] in chosen],
    )


def read_object(line: bytes) -> dict[str, Any]:
    """A line's JSON object. Raises ValueError whose text goes on after "line 7"."""
    value = _parse(line)
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004
    return value


def _id(value: dict[str, Any]) -> str:
    found = value.get("id")
    return str(found) if isinstance(found, str | int) else ""


def _messages(value: Any) -> tuple[dict[str, str], ...]:
    """Raises ValueError whose text goes on after "line 7"."""
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        raise ValueError('is not an object with a list "messages"')  # noqa: TRY004
    messages = value["messages"]
    for place, message in enumerate(messages, 1):
        match message:
            case {"role": str(role), "content": str(content)} if role in _ROLES:
                if not is_unicode(content):
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
