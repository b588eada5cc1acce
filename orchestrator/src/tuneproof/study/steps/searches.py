"""What a study searches, and for what: passages of its prompts, and pairs nearest to a question.

A search's key needs the digest of its frozen corpus, so it is known once the corpus is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tuneproof.data.items import Document, Item
from tuneproof.study.design.plan import Plan, PlannedCell, digest_of
from tuneproof.study.state.codec import StoredPassage, passages_from_json
from tuneproof.study.state.store import State, Task, task


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents to search: the data set's, or the questions of a cell's pairs."""

    name: str
    """Under which the retriever has it."""
    documents: tuple[Document, ...]
    digest: str
    """`sha256:<hex>` over the documents."""
    task: Task
    """Making it."""


class Searches:
    """A study's searches, as far as they can be known now.

    Args:
        state: where outputs are looked up.
    """

    def __init__(self, plan: Plan, state: State) -> None:
        self._plan = plan
        self._state = state

    def corpus_task(self) -> Task:
        """Making the corpus of the data set."""
        return self._making(self._plan.documents_digest)

    def corpora(self) -> list[Corpus]:
        """What is searched, the data set's corpus first."""
        pools = {digest: _questions(cell) for cell, digest in self.searching}
        return [self._corpus(self._plan.dataset.documents, self._plan.documents_digest)] + [
            self._corpus(documents, digest) for digest, documents in pools.items()
        ]

    def searched_items(self) -> list[Item]:
        """Items whose passages the study needs: all test items, and those whose prompts tuning or
        examples show."""
        found = {item.id: item for item in self._plan.test}
        for cell in self._plan.cells:
            if cell.shows_passages:
                found |= {item.id: item for item in cell.items}
        return list(found.values())

    def retrieval_tasks(self) -> dict[str, Task]:
        """Searches by item id; empty while there is no corpus."""
        digest = self._frozen(self.corpus_task())
        if digest is None:
            return {}
        settings = self._search_settings(self._plan.spec.retrieval.depth)
        return {
            item.id: task("retrieval", {"corpus": digest, "query": item.question, **settings})
            for item in self.searched_items()
        }

    def neighbour_tasks(self) -> dict[tuple[str, str], Task]:
        """Searches for the pairs nearest to a test item, by cell and item; without the cells whose
        pairs are not searchable yet."""
        found = {}
        for cell, pool in self.searching:
            digest = self._frozen(self._making(pool))
            examples = cell.arm.examples
            if digest is None or examples is None:
                continue
            # A long question is several passages.
            settings = self._search_settings(2 * examples.k)
            settings.pop("rerank", None)
            for item in self._plan.test:
                inputs = {"corpus": digest, "query": item.question, **settings}
                found[cell.name, item.id] = task("retrieval", inputs)
        return found

    def neighbours(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """Ids of the pairs nearest to a test item, the nearest first, by cell and item."""
        outputs = self._state.outputs(self.neighbour_tasks())
        return {
            at: tuple(dict.fromkeys(each.document_id for each in passages_from_json(output)))
            for at, output in outputs.items()
        }

    def _search_settings(self, k: int) -> dict[str, Any]:
        # Without a reranker the inputs, and so the results, are those of before there was one.
        retrieval = self._plan.spec.retrieval
        settings = {**retrieval.model_dump(exclude_none=True), "k": k}
        if settings["mode"] != "hybrid":
            del settings["alpha"]
        return settings

    @cached_property
    def searching(self) -> list[tuple[PlannedCell, str]]:
        """The cells whose examples are searched for, with the digest of their pairs' questions."""
        return [
            (cell, digest_of(_questions(cell)))
            for cell in self._plan.cells
            if cell.arm.examples is not None and cell.arm.examples.choose == "nearest"
        ]

    def _making(self, documents_digest: str) -> Task:
        chunking = self._plan.spec.corpus.model_dump()
        if chunking["by"] == "tokens":  # the default, younger than corpora that are made already
            del chunking["by"]
        return task("corpus", {"documents": documents_digest, "chunking": chunking})

    def _corpus(self, documents: tuple[Document, ...], digest: str) -> Corpus:
        making = self._making(digest)
        name = f"{self._plan.dataset.name}-{making.key.removeprefix('sha256:')[:24]}"
        return Corpus(name, documents, digest, making)

    def _frozen(self, making: Task) -> str | None:
        corpus = self._state.get(making.key)
        return None if corpus is None else str(corpus["digest"])

    def passages(self) -> dict[str, tuple[StoredPassage, ...]]:
        """The passages found, by item id, as deep as retrieval is measured (the prompt takes the
        first k); without the items whose search is missing."""
        outputs = self._state.outputs(self.retrieval_tasks())
        return {item: passages_from_json(output) for item, output in outputs.items()}


def _questions(cell: PlannedCell) -> tuple[Document, ...]:
    """The questions of a cell's pairs, as documents."""
    return tuple(Document(item.id, item.question) for item in cell.items)
