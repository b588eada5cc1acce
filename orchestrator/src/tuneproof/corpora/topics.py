"""Questions with their evidence, and the documents in which it stands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from tuneproof.data.components import components
from tuneproof.data.evaluation import shows_text
from tuneproof.data.items import Dataset, Item
from tuneproof.data.loaders import bioasq
from tuneproof.data.reading import lines
from tuneproof.data.reading.records import Fields, Mistake, Source, listed
from tuneproof.servicekit.errors import InvalidInput

_LEAST_SHARE = 0.5
_LEAST_CHARACTERS = 30


class Found(Protocol):
    """A retrieved passage."""

    @property
    def document_id(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a piece of evidence stands: in a document, between two offsets, or by its text."""

    document: str
    start: int = 0
    end: int = 0
    """Offsets in code points; both 0 where they are not known."""
    text: str = ""
    """Where offsets are not known; empty: any passage of the document will do."""

    def shown_by(self, passage: Found) -> bool:
        """Whether a passage brings the evidence that stands here.

        By offsets the two overlap by at least half of the shorter one, and by 30 characters or the
        whole evidence; by text as `data.evaluation` says.
        """
        if passage.document_id != self.document:
            return False
        if not self.end:
            return not self.text or shows_text(passage.text, self.text)
        length = self.end - self.start
        shorter = min(length, passage.end - passage.start)
        shared = min(self.end, passage.end) - max(self.start, passage.start)
        return shared >= max(_LEAST_SHARE * shorter, min(_LEAST_CHARACTERS, length))


@dataclass(frozen=True, slots=True)
class Evidence:
    """A piece of evidence; several places may hold it, and one of them is enough."""

    places: tuple[Place, ...]
    grade: int = 1
    """Relevance, 1 or more: the gain of nDCG."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A question whose evidence is known."""

    id: str
    query: str
    evidence: tuple[Evidence, ...]
    cluster: str
    """Topics that share a document share a cluster."""


@dataclass(frozen=True)
class Collection:
    """Topics, and their documents where these are at hand."""

    name: str
    topics: tuple[Topic, ...]
    documents: Source | None
    notes: tuple[str, ...] = ()


def open_collection(paths: Sequence[Path], *, split: str = "test") -> Collection:
    """Topics of a BEIR folder, of BioASQ's golden files, or of a JSON Lines file.

    A line of JSON has `id`, `query`, `evidence`, and perhaps `cluster`. A piece of evidence has
    `document`, and `start` and `end`, or `text`, or neither; and perhaps `grade`.

    Raises:
        InvalidInput: naming file and line of what cannot be used.
    """
    first = paths[0]
    if all(path.suffix == ".json" for path in paths):
        return _of_dataset(bioasq.load(*paths))
    if len(paths) > 1:
        raise InvalidInput("several sources are only taken for BioASQ's golden files (.json)")
    if first.is_dir():
        return _beir(first, split)
    if first.suffix == ".jsonl":
        return _of_lines(first)
    raise InvalidInput(
        f"{first} is neither a BEIR folder, nor a BioASQ golden file (.json), nor JSON Lines with"
        " topics (.jsonl)"
    )


def _of_dataset(dataset: Dataset) -> Collection:
    texts = {document.id: document.text for document in dataset.documents}
    topics = [
        Topic(item.id, item.question, _evidence_of(item, texts), item.cluster)
        for item in dataset.items
    ]
    source = Source(
        dataset.name, lambda: ((f"{dataset.name}, {each.id}", each) for each in dataset.documents)
    )
    return Collection(dataset.name, tuple(topics), source, dataset.notes)


def _evidence_of(item: Item, texts: dict[str, str]) -> tuple[Evidence, ...]:
    """Evidence by its offsets in the documents; without evidence texts, the documents."""
    if not item.gold_texts:
        return tuple(Evidence((Place(document),)) for document in item.gold_documents)
    pieces = {" ".join(text.casefold().split()): text for text in item.gold_texts}
    found = []
    for text in pieces.values():
        starts = {document: texts[document].find(text) for document in item.gold_documents}
        places = [Place(doc, at, at + len(text)) for doc, at in starts.items() if at >= 0]
        found.append(Evidence(tuple(places or [Place(doc, text=text) for doc in starts])))
    return tuple(found)


def _beir(folder: Path, split: str) -> Collection:
    qrels = folder / "qrels" / f"{split}.tsv"
    for path in (folder / "queries.jsonl", qrels):
        if not path.is_file():
            splits = sorted(each.stem for each in (folder / "qrels").glob("*.tsv"))
            raise InvalidInput(
                f"{folder} is not a BEIR folder: {path} is missing; splits there:"
                f" {', '.join(splits) or 'none'}"
            )
    queries, grades = lines.queries_of(folder / "queries.jsonl"), lines.grades_of(qrels)
    if lacking := sorted(grades.keys() - queries.keys()):
        raise InvalidInput(f"{qrels} names queries that queries.jsonl lacks:\n{listed(lacking)}")
    relevant = {
        query: {document: grade for document, grade in found.items() if grade > 0}
        for query, found in grades.items()
    }
    cluster = components(relevant)
    topics = tuple(
        Topic(
            query,
            queries[query],
            tuple(Evidence((Place(doc),), grade) for doc, grade in found.items()),
            cluster[query],
        )
        for query, found in relevant.items()
    )
    corpus = folder / "corpus.jsonl"
    documents = Source(str(corpus), partial(lines.records_of, corpus, Fields()))
    return Collection(folder.name, topics, documents if corpus.is_file() else None)


def _of_lines(path: Path) -> Collection:
    mistakes: list[Mistake] = []
    named: dict[str, Topic] = {}
    for where, value in lines.objects_of(path):
        found = _topic(value, where)
        if isinstance(found, Mistake):
            mistakes.append(found)
        elif found.id in named:
            mistakes.append(Mistake(where, f"the id {found.id!r} is that of an earlier record"))
        else:
            named[found.id] = found
    if mistakes:
        raise InvalidInput(f"the topics cannot be used:\n{listed(mistakes)}")
    if not named:
        raise InvalidInput(f"{path} holds no topic")
    cluster = components({id_: _documents(topic) for id_, topic in named.items()})
    topics = (
        Topic(one.id, one.query, one.evidence, one.cluster or cluster[one.id])
        for one in named.values()
    )
    return Collection(path.stem, tuple(topics), None)


def _documents(topic: Topic) -> Iterable[str]:
    return (place.document for place in chain(*(piece.places for piece in topic.evidence)))


def _topic(value: Any, where: str) -> Topic | Mistake:
    if isinstance(value, Mistake):
        return value
    try:
        evidence = tuple(_piece(piece) for piece in value["evidence"])
        id_, query = str(value["id"]), value["query"]
        if not (id_.strip() and isinstance(query, str) and query.strip()):
            return Mistake(where, "its id or its query is blank")
        return Topic(id_, query, evidence, str(value.get("cluster", "")))
    except KeyError as error:
        return Mistake(where, f"lacks {error}")
    except (AttributeError, TypeError, ValueError, OverflowError):
        return Mistake(
            where,
            "is not a topic, as in "
            '{"id": "q1", "query": "…", "evidence": [{"document": "d1", "start": 0, "end": 90}]}',
        )


def _piece(value: Any) -> Evidence:
    start, end = int(value.get("start", 0)), int(value.get("end", 0))
    grade = int(value.get("grade", 1))
    if not 0 <= start <= end or grade < 1:
        raise ValueError(value)
    return Evidence((Place(str(value["document"]), start, end, str(value.get("text", ""))),), grade)
