"""The values of the domain: corpora, documents, passages."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from tuneproof.servicekit.digests import canonical_json, sha256_of_json

Vector = npt.NDArray[np.float32]
"""Shape [dimension], length 1."""
Vectors = npt.NDArray[np.float32]
"""Shape [n, dimension], each row of length 1."""

_PASSAGE_IDS = uuid.uuid5(uuid.NAMESPACE_URL, "tuneproof/passage")


class CorpusState(StrEnum):
    """Whether a corpus takes documents or answers searches."""

    OPEN = "open"
    FROZEN = "frozen"


class ChunkingStrategy(StrEnum):
    """Where passages begin and end; none is longer than `Chunking.max_tokens`."""

    TOKENS = "tokens"
    """As many tokens as fit, to the end of the last whole sentence if there is one."""
    SENTENCES = "sentences"
    """One sentence, after those before it that fit into the overlap."""
    STRUCTURE = "structure"
    """As many whole paragraphs of one section as fit."""


@dataclass(frozen=True)
class Chunking:
    """How documents become passages."""

    max_tokens: int
    """Longest passage in tokens of the embedder, without its special tokens."""
    overlap_tokens: int = 0
    """Most tokens that a passage shares with the one before."""
    by: ChunkingStrategy = ChunkingStrategy.TOKENS

    @property
    def settings(self) -> dict[str, int | str]:
        """What the digest of a corpus holds: `by` only where it is not the default."""
        settings = asdict(self)
        if self.by is ChunkingStrategy.TOKENS:
            del settings["by"]
        return settings


@dataclass(frozen=True)
class EmbedderIdentity:
    """What turned text into vectors; two embedders are the same when their digests are."""

    id: str
    """Model id or folder name."""
    digest: str
    """`sha256:<hex>` over weights, tokenizer and configuration."""
    dimension: int
    """Length of a vector."""
    max_tokens: int
    """Longest input in tokens, without special tokens and prompts."""


@dataclass(frozen=True)
class Proof:
    """What freezing looked up by its own vector and its own words."""

    passages_checked: int
    """All of an interrupted import, else a sample drawn at random."""
    passages_mended: int
    """How many were not found at first; they were indexed anew."""


@dataclass(frozen=True)
class Corpus:
    """A named set of passages, without the passages."""

    name: str
    chunking: Chunking
    embedder: EmbedderIdentity
    create_time: datetime
    labels: Mapping[str, str] = field(default_factory=dict)
    state: CorpusState = CorpusState.OPEN
    digest: str = ""
    """`sha256:<hex>` once frozen, else empty."""
    document_count: int = 0
    """Of a frozen corpus; an open one is counted when asked."""
    passage_count: int = 0
    """Of a frozen corpus; an open one is counted when asked."""
    freeze_time: datetime | None = None
    proof: Proof | None = None
    """Of a frozen corpus; None where it was frozen by a version that proved nothing."""


@dataclass(frozen=True)
class Document:
    """A text as the caller gave it."""

    id: str
    text: str
    title: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """`sha256:<hex>` over all fields."""
        return sha256_of_json([self.id, self.title, self.text, dict(self.metadata)])


@dataclass(frozen=True)
class Passage:
    """A window of a document."""

    id: str
    document_id: str
    text: str
    start: int
    """Offset of the first code point in the document's text."""
    end: int
    """Offset after the last code point."""
    title: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def embedded_text(self) -> str:
        """What the embedder reads: the title on a line of its own, then the text."""
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True)
class PreparedDocument:
    """A document cut and embedded, ready to be stored."""

    id: str
    digest: str
    """Of the document's content."""
    passages: tuple[Passage, ...]
    """In the document's order, at least one."""
    vectors: Vectors
    """One row per passage."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage in one list of a search."""

    id: str
    """The passage's."""
    score: float
    """Higher is nearer."""
    passage: Passage | None = None
    """None where the list is long: `VectorStore.passages` reads those that are wanted."""
    place: Any = None
    """Where the store keeps the passage, or has it from the search; only the store can use it."""


@dataclass(frozen=True)
class Hit:
    """A passage that a search found."""

    passage: Passage
    score: float
    """Higher is nearer."""
    first_score: float | None = None
    """The search's own score of a passage whose `score` is a reranker's; else None."""


def passage_of(document: Document, start: int, end: int) -> Passage:
    """The passage of a document between two offsets.

    Its id is a UUIDv5 over document id, offsets and text: the same content has the same id in
    every corpus.
    """
    text = document.text[start:end]
    content = canonical_json([document.id, start, end, text]).decode()
    return Passage(
        id=str(uuid.uuid5(_PASSAGE_IDS, content)),
        document_id=document.id,
        text=text,
        start=start,
        end=end,
        title=document.title,
        metadata=document.metadata,
    )
