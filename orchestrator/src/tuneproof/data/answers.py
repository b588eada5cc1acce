"""Answers that another system gave to the questions of a data set, from JSON Lines or CSV."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneproof.data.reading.lines import objects_of
from tuneproof.data.reading.records import Wrong, mistakes_of, refuse_all, text_of
from tuneproof.data.reading.tables import rows_of
from tuneproof.servicekit.digests import sha256_of_file
from tuneproof.servicekit.errors import InvalidInput

_SHOWN = 5
_NUMBERS = ("prompt_tokens", "completion_tokens")


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """One answer, and what its record says of it."""

    text: str
    where: str
    """File and line."""
    prompt_tokens: int = 0
    """0: not said."""
    completion_tokens: int = 0
    seconds: float = 0.0
    prompt_digest: str = ""
    """`sha256:<hex>` of the prompt's messages, where it is given."""
    prompt_token_ids: tuple[int, ...] | None = None
    """The prompt's token ids, where they are given."""


@dataclass(frozen=True, slots=True)
class GivenAnswers:
    """A file of them."""

    path: Path
    digest: str
    """`sha256:<hex>` of the file."""
    by_item: Mapping[str, GivenAnswer]
    left_out: int
    """Answers to other questions of the data set, which are not tested."""


def read_answers(
    path: Path, *, id_field: str, answer_field: str, test: Sequence[str], known: Collection[str]
) -> GivenAnswers:
    """Reads a file with an answer to each test question.

    Args:
        path: CSV if its name ends so, else JSON Lines.
        id_field: the field with the question's id.
        answer_field: the field with the answer's text; an empty text is an answer.
        test: ids of the test questions.
        known: ids of all questions of the data set; answers to those that are not tested are left
            out.

    Raises:
        InvalidInput: with each unknown or repeated id and each broken record by its line, and with
            the questions that lack an answer.
    """
    if not path.is_file():
        raise InvalidInput(f"there is no file {path} with answers")
    reading = _Reading(id_field, answer_field, frozenset(known))
    records = rows_of(path) if path.suffix.lower() == ".csv" else objects_of(path)
    mistakes: list[object] = list(mistakes_of(records, reading.take))
    lacking = [name for name in test if name not in reading.found]
    if lacking:
        shown = ", ".join(lacking[:_SHOWN]) + (" …" if len(lacking) > _SHOWN else "")
        mistakes.append(f"{path} lacks answers to {len(lacking)} of {len(test)}: {shown}")
    refuse_all(mistakes, f"the answers in {path.name}")
    wanted = {name: reading.found[name] for name in test}
    left_out = len(reading.found) - len(wanted)
    return GivenAnswers(path, sha256_of_file(path), wanted, left_out)


class _Reading:
    """What the records gave so far."""

    def __init__(self, id_field: str, answer_field: str, known: frozenset[str]) -> None:
        self._id, self._answer, self._known = id_field, answer_field, known
        self.found: dict[str, GivenAnswer] = {}

    def take(self, where: str, record: Any) -> None:
        """One more record."""
        if not isinstance(record, Mapping):
            raise Wrong('is not an object, as in {"id": "q1", "answer": "…"}')
        for field in (self._id, self._answer):
            if field not in record:
                raise Wrong(f"lacks the field {field!r}; it has {', '.join(map(str, record))}")
        given = record[self._id]
        if isinstance(given, bool) or not isinstance(given, str | int):
            raise Wrong(f"{self._id}: is neither a text nor a whole number")
        text = text_of(self._answer, record[self._answer])
        name = str(given)
        if name not in self._known:
            raise Wrong(f"the data set has no question {name!r}")
        if name in self.found:
            raise Wrong(f"{name!r} has an answer already, at {self.found[name].where}")
        self.found[name] = _given(record, text, where)


def _given(record: Mapping[str, Any], text: str, where: str) -> GivenAnswer:
    numbers = {name: int(_number(record, name, whole=True)) for name in _NUMBERS}
    digest = record.get("prompt_digest") or ""
    if not isinstance(digest, str):
        raise Wrong("prompt_digest: is not a text")
    return GivenAnswer(
        text,
        where,
        **numbers,
        seconds=_number(record, "seconds", whole=False),
        prompt_digest=digest,
        prompt_token_ids=_ids(record.get("prompt_token_ids")),
    )


def _number(record: Mapping[str, Any], name: str, *, whole: bool) -> float:
    """A number, of CSV in words; 0 where it is left out."""
    value = record.get(name)
    if value is None or value == "":
        return 0
    try:
        number = float(value)
        good = not isinstance(value, bool) and 0 <= number < float("inf")
    except (TypeError, ValueError):
        good = False
    if not good or (whole and number != int(number)):
        raise Wrong(f"{name}: is {value!r}, not a {'whole ' if whole else ''}number from 0")
    return number


def _ids(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except ValueError:
            value = [value]
    if value is None or value == "":
        return None
    if not isinstance(value, list) or any(type(each) is not int or each < 0 for each in value):
        raise Wrong("prompt_token_ids: is not a list of whole numbers")
    return tuple(value)
