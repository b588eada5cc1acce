"""Where corpora live."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tuneproof.servicekit.errors import Corrupted
from tuneproof_retriever.corpus import Candidate, Corpus, Passage, PreparedDocument, Vector


@dataclass(frozen=True)
class Counts:
    """What a corpus holds now."""

    documents: int
    passages: int


@dataclass(frozen=True)
class StoredPassage:
    """A passage with what tells whether its document is complete."""

    passage: Passage
    ordinal: int
    """Place among the passages of its document, from 0."""
    siblings: int
    """Number of passages of its document, itself included."""


class VectorStore(Protocol):
    """Keeps passages with their vectors and a record per corpus.

    Names are checked by the caller. All methods raise `NotFound` for a corpus that is not there
    (but `create` and `names`), `Unavailable` when the store cannot be reached or written,
    `WrongState` when it refuses this process, and `Corrupted` when it holds what cannot be read.
    """

    async def create(self, corpus: Corpus) -> bool:
        """Makes an empty corpus, whole or not at all; False when the name is taken."""

    async def load(self, name: str) -> Corpus:
        """The record of a corpus."""

    async def save(self, corpus: Corpus) -> None:
        """Replaces the record of a corpus atomically."""

    async def delete(self, name: str) -> None:
        """Removes a corpus, also one that cannot be read; after a crash it is there as before, or
        gone. The caller has the claim, or nobody has it."""

    async def names(self) -> list[str]:
        """Names of all corpora, sorted, with those that cannot be read."""

    async def documents(self, name: str) -> dict[str, str]:
        """Content digests of the documents that are complete, by document id."""

    async def add(self, name: str, documents: Sequence[PreparedDocument]) -> None:
        """Stores documents of which none is complete yet.

        A document appears in `documents` when all its passages are stored, not before, even if
        the process dies in between; what an interrupted call left is replaced.
        """

    async def counts(self, name: str) -> Counts:
        """Complete documents, and their passages."""

    def scan(self, name: str) -> AsyncIterator[list[StoredPassage]]:
        """All passages by ascending id, in lists of any length."""

    async def build_indexes(self, name: str) -> None:
        """Makes a corpus searchable; may be repeated."""

    async def dense(
        self,
        name: str,
        vector: Vector,
        limit: int,
        where: Mapping[str, str],
        *,
        whole: bool = False,
    ) -> list[Candidate]:
        """Passages with the greatest cosine to `vector`, best first; scores are cosines.

        Args:
            limit: most candidates.
            where: entries that a passage's metadata must hold.
            whole: the candidates bring their passages, which costs more than it saves where most
                of them are not wanted.
        """

    async def keyword(
        self,
        name: str,
        words: str,
        limit: int,
        where: Mapping[str, str],
        *,
        whole: bool = False,
    ) -> list[Candidate]:
        """Passages that hold any of the words, by BM25, best first.

        `words` is text, never a query language: no character of it has a meaning.

        Args:
            limit: most candidates.
            where: entries that a passage's metadata must hold.
            whole: see `dense`.
        """

    async def passages(self, name: str, candidates: Sequence[Candidate]) -> list[Passage]:
        """The passages of candidates that a search of this corpus gave, in their order.

        Raises:
            Corrupted: when one is not there any more.
        """

    async def vectors(self, name: str, ids: Sequence[str]) -> dict[str, Vector]:
        """Vectors of passages by id, without those that are not there."""

    async def searches_exactly(self, name: str) -> bool:
        """Whether a dense search reads every passage's own vector: no index can lack one."""

    async def mend(self, name: str, ids: Sequence[str]) -> None:
        """Indexes passages anew that a search does not find though they are stored.

        Raises:
            Corrupted: when that needs what is lost.
        """

    async def claim(self, name: str) -> str:
        """Makes this process the only one that changes a corpus, for a while or until `release`.

        The answer stays the same until the claim was interrupted: then another process may have
        changed the corpus meanwhile.

        Raises:
            Unavailable: while another process has it, naming that one.
        """

    async def release(self, name: str) -> None:
        """Ends a claim of this process; may be repeated."""

    @property
    def outages(self) -> int:
        """How often the store was seen to be away: what was written shortly before may be lost."""

    async def check_ready(self) -> None:
        """Returns when calls can be served.

        Raises:
            Unavailable: with the reason, while they cannot.
            WrongState: when somebody must correct the set-up first.
        """


def in_order(
    name: str, candidates: Sequence[Candidate], passages: Iterable[Passage]
) -> list[Passage]:
    """Passages that a store read, in the order of their candidates: see `VectorStore.passages`."""
    found = {passage.id: passage for passage in passages}
    if lost := [each.id for each in candidates if each.id not in found]:
        raise Corrupted(
            f"corpus {name!r} lost passage {lost[0]}; delete the corpus and ingest again",
            corpus=name,
        )
    return [found[each.id] for each in candidates]
