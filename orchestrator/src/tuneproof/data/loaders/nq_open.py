"""NQ-open: questions of Natural Questions with their short answers, without documents.

A line is `{"question": "…", "answer": ["…", …]}`. Which document holds the answer is unknown, so
retrieval cannot be measured, and each question is a cluster of its own.

Licence and files: https://github.com/google-research-datasets/natural-questions/tree/master/nq_open
(CC BY-SA 3.0).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, TypeAdapter

from tuneproof.data.items import Dataset, Document, Item
from tuneproof.data.reading.lines import objects_of
from tuneproof.data.reading.records import Mistake, refuse_all
from tuneproof.data.reading.whole import in_form


class _Line(BaseModel):
    question: str
    answer: list[str] = []


_FORM = TypeAdapter(_Line)


def load(paths: Sequence[Path], documents: tuple[Document, ...]) -> Dataset:
    """Reads files of NQ-open; the only style of reference is `short`, with every wording.

    Args:
        documents: the corpus to search.

    Raises:
        InvalidInput: all mistakes (the first 20), by file and line.
    """
    mistakes, items = list[Mistake](), list[Item]()
    for path in paths:
        for number, (where, value) in enumerate(objects_of(path), 1):
            if isinstance(value, Mistake):
                mistakes.append(value)
                continue
            line = in_form(_FORM, value, where)
            if isinstance(line, Mistake):
                mistakes.append(line)
            elif not line.question.strip():
                mistakes.append(Mistake(where, "question is blank"))
            else:
                items.append(_item(f"{path.name}:{number}", line))
    refuse_all(mistakes, "the questions of NQ-open")
    return Dataset("nq-open", documents, tuple(items))


def _item(name: str, line: _Line) -> Item:
    short = tuple(dict.fromkeys(text for answer in line.answer if (text := answer.strip())))
    return Item(name, line.question.strip(), {"short": short} if short else {}, (), (), name)
