"""What a study takes of a data set: which questions, and which documents beside its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from tuneproof.data.items import Dataset, Document, Item
from tuneproof.data.reading.documents import open_source
from tuneproof.data.reading.records import Fields, Mistake, refuse_all, unique
from tuneproof.servicekit.errors import InvalidInput

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which questions a study takes."""

    styles: tuple[str, ...] = ()
    """Those with a reference answer in each of these styles."""
    unanswerable: bool = False
    """Also those that the documents do not answer."""

    def reason_against(self, item: Item) -> str:
        """Why the item is left out; empty: it stays."""
        if not item.references:
            return "without an answer"
        if not item.answerable and not self.unanswerable:
            return "unanswerable"
        lacking = [style for style in self.styles if not item.references.get(style)]
        return f"without a {lacking[0]!r} reference" if lacking else ""


def narrowed(dataset: Dataset, wanted: Wanted) -> Dataset:
    """The data set with the wanted questions only; the others are counted by reason.

    Raises:
        InvalidInput: no question is left, two have one id, or an item names a document that is not
            there, or a text holds half a character.
    """
    _check_texts(dataset)
    times = Counter(item.id for item in dataset.items)
    if twice := [name for name, count in times.items() if count > 1]:
        raise InvalidInput(
            f"{len(twice)} ids of questions of {dataset.name} are there twice: {_some(twice)}"
        )
    reasons = {item.id: wanted.reason_against(item) for item in dataset.items}
    left_out = Counter(dataset.left_out) + Counter(filter(None, reasons.values()))
    items = tuple(item for item in dataset.items if not reasons[item.id])
    said = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())
    if not items:
        raise InvalidInput(
            f"the data set {dataset.name} has no question that the study wants"
            + (f"; left out: {said}" if said else "")
        )
    _check_documents(dataset)
    notes = (f"Questions left out: {said}.",) if said else ()
    return replace(dataset, items=items, left_out=dict(left_out), notes=(*dataset.notes, *notes))


def joined(dataset: Dataset, sources: Sequence[str]) -> Dataset:
    """The data set with further documents, which hold no evidence.

    Raises:
        InvalidInput: a source cannot be read, or one of its ids is that of a document.
    """
    if not sources:
        return dataset
    further = documents_of(sources)
    known = {document.id for document in dataset.documents}
    if twice := [document.id for document in further if document.id in known]:
        raise InvalidInput(
            f"{len(twice)} distractors have ids of documents of {dataset.name}, as if they held its"
            f" evidence: {_some(twice)}; leave them out, or give them other ids"
        )
    note = f"{len(further)} documents without evidence are searched too: {', '.join(sources)}."
    return replace(
        dataset,
        documents=(*dataset.documents, *further),
        gold_only=False,
        notes=(*dataset.notes, note),
    )


def documents_of(sources: Sequence[str]) -> tuple[Document, ...]:
    """The documents of JSON Lines files, BEIR folders, folders of texts, or `hf:NAME`.

    Raises:
        InvalidInput: naming what cannot be used, by file and line.
    """
    opened = [open_source(source, Fields()) for source in sources]
    records = list(unique(chain.from_iterable(source.records() for source in opened)))
    refuse_all([each for each in records if isinstance(each, Mistake)], "the documents")
    return tuple(each for each in records if isinstance(each, Document))


def _check_texts(dataset: Dataset) -> None:
    """No service takes a text that is not UTF-8."""
    of_items = (
        (f"item {item.id}", (item.question, *chain(*item.references.values()), *item.gold_texts))
        for item in dataset.items
    )
    of_documents = ((f"document {each.id}", (each.title, each.text)) for each in dataset.documents)
    for name, texts in chain(of_items, of_documents):
        try:
            "".join(texts).encode()
        except UnicodeEncodeError:
            raise InvalidInput(
                f"{name} of {dataset.name} holds half a character (a lone surrogate): remove it"
            ) from None


def _check_documents(dataset: Dataset) -> None:
    known = {document.id for document in dataset.documents}
    lacking = {
        f"{name} (item {item.id})"
        for item in dataset.items
        for name in item.gold_documents
        if name not in known
    }
    if lacking:
        raise InvalidInput(
            f"{len(lacking)} documents that hold the answers are missing: {_some(lacking)}; add"
            " them to the corpus"
        )


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:_SHOWN]) + (" …" if len(ordered) > _SHOWN else "")
