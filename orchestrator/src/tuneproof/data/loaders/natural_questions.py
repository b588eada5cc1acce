"""Natural Questions: questions to a search engine, answered on a page of Wikipedia.

Files are read line by line, packed or not. With `items` a question's place in the draw depends on
the seed and its id only: those with the lowest places stay, whatever the order of the files, and a
larger draw holds the smaller ones. Lines that the draw passes over are not parsed, so mistakes in
them do not show.

Licence and files: https://ai.google.com/research/NaturalQuestions (CC BY-SA 3.0).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from typing import Literal

from tuneproof.data.items import UNANSWERABLE, Dataset, Document, Item
from tuneproof.data.loaders.nq_examples import Cut, Example, read_example
from tuneproof.data.reading.lines import lines_of
from tuneproof.data.reading.records import Mistake, refuse_all
from tuneproof.servicekit.digests import sha256_of_json

By = Literal["pages", "paragraphs"]
"""What a document is: a whole page, or one of its paragraphs, tables and lists."""

_PASSED_OVER = "passed over by the draw"
_ID = re.compile(r'"example_id"\s*:\s*"?(-?\d+)')


def load(
    paths: Sequence[Path],
    *,
    by: By = "pages",
    items: int | None = None,
    seed: int = 0,
    reason_against: Callable[[Item], str] = lambda _: "",
) -> Dataset:
    """Reads files of Natural Questions, in either form, into one data set.

    References are `full`, the long answer's text, and `short`, the short answers joined by commas,
    or yes or no; what most annotators say comes first. As in the official evaluation, a question
    with several annotators is answerable when two of them give a long answer. Gold is each long
    answer that one of them gives. Questions about one page, in any revision, are a cluster.

    Args:
        by: what a document is.
        items: how many questions are drawn; None: all.
        reason_against: why an item is left out before the draw; empty: it takes part.

    Raises:
        InvalidInput: the mistakes of all lines that were parsed (the first 20), by file and line.
    """
    draw, mistakes, left_out = _Draw(items, seed), list[Mistake](), Counter[str]()
    for where, line in _lines(paths):
        if isinstance(line, Mistake):
            mistakes.append(line)
            continue
        if draw.passes_over(line):
            left_out[_PASSED_OVER] += 1
            continue
        example = read_example(line, where)
        if isinstance(example, Mistake):
            mistakes.append(example)
            continue
        found = _found(example, by)
        if reason := reason_against(found.item):
            left_out[reason] += 1
        elif found.item.id in draw.kept:
            mistakes.append(Mistake(where, f"the id {found.item.id} is that of an earlier line"))
        else:
            left_out[_PASSED_OVER] += draw.take(found)
    refuse_all(mistakes, "the Natural Questions")
    kept = [draw.kept[name] for name in sorted(draw.kept)]
    documents = {document.id: document for found in kept for document in found.documents}
    items_kept = tuple(found.item for found in kept)
    return Dataset("natural-questions", tuple(documents.values()), items_kept, left_out=+left_out)


def _lines(paths: Iterable[Path]) -> Iterator[tuple[str, str | Mistake]]:
    for path in paths:
        for where, line in lines_of(path):
            if isinstance(line, Mistake) or line.strip():
                yield where, line


@dataclass(frozen=True, slots=True)
class _Found:
    item: Item
    documents: tuple[Document, ...]


@dataclass
class _Draw:
    """The questions with the lowest places, at most `size`: a uniform draw without replacement."""

    size: int | None
    seed: int
    kept: dict[str, _Found] = field(default_factory=dict)
    """By item id."""
    _highest: list[tuple[int, str]] = field(default_factory=list)
    """Places of those kept, negative, so that the heap gives the highest first."""

    def passes_over(self, line: str) -> bool:
        """Whether the line's question would not stay, by its id alone."""
        if self.size is None or len(self.kept) < self.size:
            return False
        match = _ID.search(line, max(line.rfind('"example_id"'), 0))
        return match is not None and -self._place(f"nq:{match[1]}") < self._highest[0][0]

    def take(self, found: _Found) -> int:
        """Keeps a question; returns how many leave for it, 0 or 1, perhaps itself."""
        self.kept[found.item.id] = found
        if self.size is None:
            return 0
        heappush(self._highest, (-self._place(found.item.id), found.item.id))
        if len(self.kept) <= self.size:
            return 0
        del self.kept[heappop(self._highest)[1]]
        return 1

    def _place(self, name: str) -> int:
        return int(sha256_of_json([self.seed, name]).removeprefix("sha256:"), 16)


def _found(example: Example, by: By) -> _Found:
    page, title = example.page
    gold = {cut: text for cut in example.long_answers if (text := example.text(cut))}
    answerable = bool(gold) and example.has_answer
    cuts: list[Cut] = [(0, len(example.words))] if by == "pages" else _paragraphs(example, gold)
    names = {cut: page if by == "pages" else f"{page}#{cut[0]}" for cut in cuts}
    item = Item(
        id=f"nq:{example.example_id}",
        question=example.question_text.strip(),
        references=_references(example, tuple(gold.values()), answerable=answerable),
        gold_documents=tuple(
            name
            for (start, end), name in names.items()
            if answerable and any(start <= first and last <= end for first, last in gold)
        ),
        gold_texts=tuple(gold.values()) if answerable else (),
        cluster=title,
        answerable=answerable,
    )
    documents = (
        Document(name, text, title, example.metadata)
        for cut, name in names.items()
        if (text := example.text(cut))
    )
    return _Found(item, tuple(documents))


def _references(
    example: Example, full: tuple[str, ...], *, answerable: bool
) -> dict[str, tuple[str, ...]]:
    if not example.annotations:
        return {}
    if not answerable:
        return dict.fromkeys(("full", "short"), (UNANSWERABLE,))
    found = {"full": full, "short": example.short_answers}
    return {style: wordings for style, wordings in found.items() if wordings}


def _paragraphs(example: Example, gold: Iterable[Cut]) -> list[Cut]:
    """The candidates that lie in no other, and each long answer that lies in none of these."""
    cuts = {(c.start_token, c.end_token) for c in example.long_answer_candidates if c.top_level}
    cuts |= {
        (first, last)
        for first, last in gold
        if not any(start <= first and last <= end for start, end in cuts)
    }
    return sorted(cuts)
