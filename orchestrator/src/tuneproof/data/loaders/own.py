"""Records of one's own: a question each, with fields of any name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, ConfigDict

from tuneproof.data.components import components
from tuneproof.data.items import UNANSWERABLE, Dataset, Document, Item
from tuneproof.data.reading.records import Wrong, mistakes_of, refuse_all

_ABSENT = object()
_YES, _NO = ("true", "yes", "1"), ("false", "no", "0")


class ItemFields(BaseModel):
    """Under which names a record holds a question's parts; `answers.text` is a part of a part.

    The defaults are those that `tuneproof data convert` writes. A field that is named here must be
    in every record; of the others only the question.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = "id"
    """Without it, questions are numbered."""
    question: str = "question"
    references: dict[str, str] = {}
    """The field of each style; empty: the record's `references`, an object of styles."""
    gold_documents: str = "gold_documents"
    """One id or several, of documents of the corpus."""
    gold_texts: str = "gold_texts"
    """Evidence, verbatim in those documents."""
    context: str = ""
    """A text that becomes a document, and is gold for its question."""
    title: str = ""
    """The title of that document."""
    cluster: str = "cluster"
    """Without it, questions that share a gold document are a cluster."""
    answerable: str = "answerable"
    """Whether the documents answer the question."""


@dataclass
class _Reading:
    """Everything that the records gave so far."""

    fields: ItemFields
    contexts: dict[tuple[str, str], Document] = field(default_factory=dict)
    """By title and text: records with one context share a document."""
    items: list[Item] = field(default_factory=list)

    def take(self, _: str, record: Any) -> None:
        """One more record."""
        if not isinstance(record, Mapping):
            raise Wrong('is not an object, as in {"question": "…", "references": {"full": "…"}}')
        self.items.append(self._item(record))

    def _item(self, record: Mapping[str, Any]) -> Item:
        names = self.fields
        question = self._get(record, "question", names.question)
        if not isinstance(question, str) or not question.strip():
            raise Wrong(f"{names.question}: is not a text, or blank")
        answerable = _truth(self._get(record, "answerable", names.answerable), names.answerable)
        gold = _texts(self._get(record, "gold_documents", names.gold_documents), "gold_documents")
        if names.context:
            gold = (*gold, self._context(record).id)
        cluster = _texts(self._get(record, "cluster", names.cluster), names.cluster)
        name = _texts(self._get(record, "id", names.id), names.id)
        return Item(
            id=name[0] if name else str(len(self.items) + 1),
            question=question.strip(),
            references=self._references(record, answerable=answerable),
            gold_documents=gold if answerable else (),
            gold_texts=_texts(self._get(record, "gold_texts", names.gold_texts), names.gold_texts),
            cluster=cluster[0] if cluster else "",
            answerable=answerable,
        )

    def _references(
        self, record: Mapping[str, Any], *, answerable: bool
    ) -> dict[str, tuple[str, ...]]:
        if named := self.fields.references:
            raw: Any = {style: _value(record, name, named=True) for style, name in named.items()}
        else:
            raw = record.get("references")
            if not isinstance(raw, Mapping):
                raise Wrong(
                    "references: is not an object of styles; name the fields of the answers, as in"
                    " `fields: {references: {full: answer}}`"
                )
        found = {style: _texts(value, f"references.{style}") for style, value in raw.items()}
        none = () if answerable else (UNANSWERABLE,)
        return {style: texts or none for style, texts in found.items() if texts or none}

    def _context(self, record: Mapping[str, Any]) -> Document:
        text = _value(record, self.fields.context, named=True)
        title = _value(record, self.fields.title, named=True) if self.fields.title else ""
        if not isinstance(text, str) or not text.strip():
            raise Wrong(f"{self.fields.context}: is not a text, or blank")
        key = (str(title or ""), text)
        made = Document(f"context:{len(self.contexts) + 1}", text, key[0])
        return self.contexts.setdefault(key, made)

    def _get(self, record: Mapping[str, Any], part: str, name: str) -> Any:
        named = part == "question" or part in self.fields.model_fields_set
        return _value(record, name, named=named) if name else None


def load(
    name: str,
    records: Iterable[tuple[str, Any]],
    fields: ItemFields,
    documents: tuple[Document, ...] = (),
) -> Dataset:
    """A data set of records, each with the place where it stands.

    Args:
        name: of the data set.
        documents: the corpus; those of `context` are added to it.

    Raises:
        InvalidInput: all mistakes (the first 20), by place and field.
    """
    reading = _Reading(fields)
    refuse_all(list(mistakes_of(records, reading.take)), "the questions")
    items = tuple(_clustered(reading.items))
    return Dataset(name, (*documents, *reading.contexts.values()), items)


def json_of(item: Item) -> dict[str, Any]:
    """An item in the form that the default fields read."""
    return {
        "id": item.id,
        "question": item.question,
        "references": {style: list(texts) for style, texts in item.references.items()},
        "gold_documents": list(item.gold_documents),
        "gold_texts": list(item.gold_texts),
        "cluster": item.cluster,
        "answerable": item.answerable,
    }


def _clustered(items: list[Item]) -> Iterator[Item]:
    found = components({item.id: item.gold_documents for item in items})
    for item in items:
        yield item if item.cluster else replace(item, cluster=found[item.id])


def _value(record: Mapping[str, Any], name: str, *, named: bool) -> Any:
    """A field of a record, or a part of one; None where it may be absent and is."""
    value = record.get(name, _ABSENT)
    if value is _ABSENT:
        value = record
        for part in name.split("."):
            value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    if value is not _ABSENT:
        return value
    if named:
        raise Wrong(f"lacks the field {name!r}; it has {', '.join(map(str, record))}")
    return None


def _texts(value: Any, name: str) -> tuple[str, ...]:
    """One text or several; numbers are texts too, and blank ones are left out."""
    entries = list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
    if any(isinstance(each, bool) or not isinstance(each, str | int | float) for each in entries):
        raise Wrong(f"{name}: is not a text or a list of texts")
    return tuple(dict.fromkeys(text for each in entries if (text := str(each).strip())))


def _truth(value: Any, name: str) -> bool:
    word = str(value).strip().lower()
    if value is None or word in _YES:
        return True
    if word in _NO:
        return False
    raise Wrong(f"{name}: is {value!r}, not true or false")
