"""Answers to be graded, from JSON Lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuneproof.data.reading.lines import objects_of
from tuneproof.data.reading.records import Wrong, mistakes_of, refuse_all, text_of
from tuneproof.rubrics import Rubric
from tuneproof.sdk import GradeInput

_LISTS = {"reference": "references", "references": "references", "passages": "passages"}
_NEEDED = {"question": "question", "reference": "references", "passages": "passages"}
"""By what a rubric's template reads, the field of a line that gives it."""


def read_answers(path: Path, rubrics: Sequence[Rubric]) -> dict[str, GradeInput]:
    """The answers by their ids; a line without one has its number.

    A line is an object with `answer`, `question`, and where a rubric reads them `reference` (a
    text) or `references` (several), and `passages`; other fields are ignored.

    Raises:
        InvalidInput: naming each line and field that cannot be used.
    """
    found: dict[str, GradeInput] = {}
    places: dict[str, str] = {}

    def take(where: str, record: Any) -> None:
        name, one = _taken(record, where)
        _check(one, rubrics)
        earlier = places.get(name)
        places[name], found[name] = where, one
        if earlier is not None:
            raise Wrong(f"id: {name!r} is that of {earlier}")

    what = f"the answers in {path.name}"
    refuse_all(list(mistakes_of(objects_of(path), take)), what)
    refuse_all([] if found else [f"{path} holds no answer"], what)
    return found


def _taken(record: Any, where: str) -> tuple[str, GradeInput]:
    if not isinstance(record, Mapping):
        raise Wrong('is not an object, as in {"question": "…", "answer": "…"}')
    if "answer" not in record:
        raise Wrong(f"lacks the field 'answer'; it has {', '.join(map(repr, record)) or 'none'}")
    if "reference" in record and "references" in record:
        raise Wrong("has both 'reference' and 'references': leave one out")
    name = record.get("id", where.rpartition(" ")[2])
    if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
        raise Wrong("id: is neither a text nor a whole number")
    lists = {
        field: tuple(_texts(given, record[given]))
        for given, field in _LISTS.items()
        if record.get(given) is not None
    }
    return text_of("id", str(name)), GradeInput(
        text_of("question", record.get("question", "")),
        text_of("answer", record["answer"]),
        lists.get("references", ()),
        lists.get("passages", ()),
    )


def _texts(field: str, value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield text_of(field, value)
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield text_of(f"{field}[{number}]", one)
    else:
        raise Wrong(f"{field}: is neither a text nor a list of texts")


def _check(one: GradeInput, rubrics: Sequence[Rubric]) -> None:
    """That all is there what the rubrics read: found before anything is paid for."""
    for rubric in rubrics:
        for read, field in _NEEDED.items():
            given = getattr(one, field)
            if read in rubric.placeholders and not "".join(given).strip():
                raise Wrong(f"{field}: is missing or blank, and the rubric {rubric.id} reads it")
