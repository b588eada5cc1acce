"""TeleQnA: questions on telecommunications, asked without their options.

A file is `{"question 0": {"question", "option 1", …, "answer": "option 2: …", "explanation",
"category"}, …}`. A question that cannot be asked without its options, such as "Which of the
following …" or one whose answer is "All of the above", is left out. Which document holds the
answer is unknown, so retrieval cannot be measured, and each question is a cluster of its own.

Licence and files: https://github.com/netop-team/TeleQnA (MIT; the archive's password is there).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from tuneproof.data.items import Dataset, Document, Item
from tuneproof.data.reading.records import Mistake, refuse_all
from tuneproof.data.reading.whole import in_form, json_of
from tuneproof.servicekit.errors import InvalidInput

CLOSED = "cannot be asked without its options"

_RIGHT = re.compile(r"\s*option\s+(\d+)\s*:\s*(.*)", re.IGNORECASE | re.DOTALL)
_NAMES_OPTIONS = re.compile(
    r"\b(?:which|what|all|any|one|none|two) of (?:the|these) (?:following|options|above|below)\b"
    r"|\bthe following (?:options|statements)\b|\b(?:options?|choices?) [1-9a-e]\b"
    r"|\b(?:all|none|both|any) of (?:the above|these|them)\b",
    re.IGNORECASE,
)


class _Question(BaseModel):
    model_config = ConfigDict(extra="allow")  # `option 1` and so on

    question: str
    answer: str
    explanation: str | None = ""


_FORM = TypeAdapter(_Question)


def load(paths: Sequence[Path], documents: tuple[Document, ...]) -> Dataset:
    """Reads TeleQnA's JSON; references are `full`, the explanation, and `short`, the right option.

    Args:
        documents: the corpus to search.

    Raises:
        InvalidInput: all mistakes (the first 20), by file and question.
    """
    mistakes, items, closed = list[Mistake](), list[Item](), 0
    for path in paths:
        for name, value in _read(path).items():
            where = f"{path}, {name}"
            question = in_form(_FORM, value, where)
            found = question if isinstance(question, Mistake) else _item(name, question, where)
            if isinstance(found, Mistake):
                mistakes.append(found)
            elif _NAMES_OPTIONS.search(f"{found.question}\n{found.references['short'][0]}"):
                closed += 1
            else:
                items.append(found)
    refuse_all(mistakes, "the questions of TeleQnA")
    return Dataset("teleqna", documents, tuple(items), left_out={CLOSED: closed} if closed else {})


def _read(path: Path) -> dict[str, object]:
    content = json_of(path, "TeleQnA's JSON")
    if not isinstance(content, dict) or not content:
        raise InvalidInput(f'{path} is not TeleQnA\'s JSON: expected {{"question 0": {{…}}, …}}')
    return content


def _item(name: str, question: _Question, where: str) -> Item | Mistake:
    right = _RIGHT.fullmatch(question.answer)
    options = question.model_extra or {}
    if right is None:
        return Mistake(where, "answer: is not in the form `option 2: …`")
    if f"option {right[1]}" not in options:
        return Mistake(where, f"answer: there is no option {right[1]}")
    if not question.question.strip() or not right[2].strip():
        return Mistake(where, "question or answer is blank")
    explanation = (question.explanation or "").strip()
    references = {"full": (explanation,)} if explanation else {}
    return Item(
        id=name,
        question=question.question.strip(),
        references=references | {"short": (right[2].strip(),)},
        gold_documents=(),
        gold_texts=(),
        cluster=name,
    )
