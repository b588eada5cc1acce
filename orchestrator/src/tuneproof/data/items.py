"""The value classes that every data set loader returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

UNANSWERABLE = "Unanswerable"
"""The reference answer to a question that the documents do not answer."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text of the corpus."""

    id: str
    """Unique in the data set."""
    text: str
    title: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its reference answers and its evidence."""

    id: str
    """Unique in the data set."""
    question: str
    references: Mapping[str, tuple[str, ...]]
    """Reference answers by style (`full`, `short`), each with at least one wording; tuning uses
    the first, lexical scores take the best."""
    gold_documents: tuple[str, ...]
    """Ids of the documents that hold the answer."""
    gold_texts: tuple[str, ...]
    """Evidence, verbatim in those documents."""
    cluster: str
    """Items that share a document share a cluster; whole clusters are split and resampled."""
    answerable: bool = True
    """Whether the documents hold an answer; where they do not, a refusal is right."""


@dataclass(frozen=True, slots=True)
class JudgeForm:
    """An answer whose right scores are known: the judge's own examination."""

    id: str
    question: str
    reference: str
    answer: str
    scores: Mapping[str, int]
    """Right score by criterion (`accuracy`, `completeness`)."""
    levels: tuple[int, ...] = (1, 2, 3, 4, 5)
    """The scale of the right scores, lowest first; a rubric with another scale is not examined."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Documents and items."""

    name: str
    documents: tuple[Document, ...]
    items: tuple[Item, ...]
    synthetic: bool = False
    """Made by a program: says nothing about real models."""
    gold_only: bool = False
    """The corpus holds evidence only, so retrieval is easier than in real use."""
    notes: tuple[str, ...] = ()
    """Sentences that the report repeats."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """By reason: how many questions of the files are not among the items."""
