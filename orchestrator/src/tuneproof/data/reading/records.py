"""What every source yields: a document, or a record that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneproof.data.items import Document
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.texts import is_unicode

_MOST_LISTED = 20


@dataclass(frozen=True, slots=True)
class Mistake:
    """A record that cannot be used."""

    where: str
    """File, and line or record number."""
    what: str

    def __str__(self) -> str:
        """In one sentence."""
        return f"{self.where}: {self.what}"


class Wrong(Exception):
    """What is wrong with a record; who reads it tells the place."""


Record = Document | Mistake
Records = Iterable[tuple[str, Record]]
"""Each with its place: file, and line or record number."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The names under which a record holds a document's parts."""

    id: str = ""
    """Empty: `_id`, as BEIR has it, or `id`."""
    text: str = "text"
    title: str = "title"


@dataclass(frozen=True)
class Source:
    """Documents that can be read several times."""

    name: str
    records: Callable[[], Records]
    """Reads from the beginning."""
    survey: Callable[[], Records] | None = None
    """As `records`, but quicker: it may find fewer mistakes; None: there is no such way."""


def document_from(record: Any, fields: Fields, where: str) -> Record:
    """The document of a JSON object, whose `metadata` is an object of words and numbers."""
    if not isinstance(record, Mapping):
        return Mistake(where, "is not an object, as in " + '{"id": "a1", "text": "…"}')
    names = (fields.id,) if fields.id else ("_id", "id")
    id_ = next((record[name] for name in names if name in record), None)
    if isinstance(id_, bool) or not isinstance(id_, str | int) or not str(id_).strip():
        return Mistake(where, f"lacks an id in {' or '.join(map(repr, names))}")
    text, title = record.get(fields.text), record.get(fields.title) or ""
    if not isinstance(text, str):
        return Mistake(where, f"lacks a text in {fields.text!r}")
    if not isinstance(title, str):
        return Mistake(where, f"{fields.title!r} is not a text")
    metadata = record.get("metadata") or {}
    if not isinstance(metadata, Mapping) or not all(
        isinstance(value, str | int | float) for value in metadata.values()
    ):
        return Mistake(where, "metadata is not an object of texts and numbers")
    found = {str(key): str(value) for key, value in metadata.items()}
    return checked(Document(str(id_), text, title, found), where)


def checked(document: Document, where: str) -> Record:
    """The document, or why no service takes it."""
    if not document.text.strip():
        return Mistake(where, "its text is blank")
    try:
        metadata = (part for entry in document.metadata.items() for part in entry)
        for part in (document.id, document.text, document.title, *metadata):
            part.encode()
    except UnicodeEncodeError as error:
        return Mistake(where, f"holds half a character (a lone surrogate) at offset {error.start}")
    return document


def unique(records: Records) -> Iterator[Record]:
    """The records; one with an id that came before is a mistake."""
    seen: set[str] = set()
    for where, record in records:
        if isinstance(record, Document) and record.id in seen:
            yield Mistake(where, f"the id {record.id!r} is that of an earlier record")
            continue
        if isinstance(record, Document):
            seen.add(record.id)
        yield record


def mistakes_of(
    records: Iterable[tuple[str, Any]], take: Callable[[str, Any], None]
) -> Iterator[Mistake]:
    """Takes all records; gives those that cannot be used, and why.

    Args:
        take: is given a record's place and the record; raises `Wrong`.
    """
    for where, record in records:
        if isinstance(record, Mistake):
            yield record
            continue
        try:
            take(where, record)
        except Wrong as wrong:
            yield Mistake(where, str(wrong))


def text_of(field: str, value: object) -> str:
    """A field's text.

    Raises:
        Wrong: it is none, or no service takes it.
    """
    if not isinstance(value, str):
        raise Wrong(f"{field}: is not a text")
    if not is_unicode(value):
        raise Wrong(f"{field}: holds half a character (a lone surrogate)")
    return value


def listed(mistakes: Sequence[object]) -> str:
    """The first of them, a line each."""
    shown = "\n".join(f"  {each}" for each in mistakes[:_MOST_LISTED])
    more = len(mistakes) - _MOST_LISTED
    return shown + (f"\n  and {more} more" if more > 0 else "")


def refuse_all(mistakes: Sequence[object], what: str) -> None:
    """Nothing, where there is no mistake.

    Args:
        what: the data with the mistakes, as in `the BioASQ data`.

    Raises:
        InvalidInput: with the first mistakes, a line each.
    """
    if mistakes:
        raise InvalidInput(f"{what} cannot be used; correct or remove these:\n{listed(mistakes)}")
