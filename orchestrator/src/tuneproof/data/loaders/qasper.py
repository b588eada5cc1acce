"""Qasper 0.3: questions about a paper on natural language processing, by several annotators.

A document is a whole paper: abstract, sections, captions of figures and tables. A question's paper
is also its cluster.

Licence and files: https://allenai.org/data/qasper (CC BY 4.0).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, TypeAdapter

from tuneproof.data.items import UNANSWERABLE, Dataset, Document, Item
from tuneproof.data.reading.records import Mistake, refuse_all
from tuneproof.data.reading.whole import in_form, json_of
from tuneproof.servicekit.errors import InvalidInput

_CAPTION = "FLOAT SELECTED: "
"""Before evidence that is the caption of a figure or table."""


class _Answer(BaseModel):
    unanswerable: bool = False
    extractive_spans: list[str] = []
    free_form_answer: str | None = ""
    yes_no: bool | None = None
    evidence: list[str] = []

    @property
    def short(self) -> str:
        """Spans, or yes or no; empty: neither is there."""
        spans = filter(None, map(_line, self.extractive_spans))
        if joined := ", ".join(dict.fromkeys(spans)):
            return joined
        # False is an answer.
        return "" if self.yes_no is None else "Yes" if self.yes_no else "No"

    @property
    def full(self) -> str:
        """Spans, else the free form, else yes or no; empty: nothing is there."""
        if any(map(_line, self.extractive_spans)):
            return self.short
        return _line(self.free_form_answer or "") or self.short


class _Annotation(BaseModel):
    answer: _Answer


class _Question(BaseModel):
    question: str
    question_id: str
    answers: list[_Annotation] = []


class _Section(BaseModel):
    section_name: str | None = ""
    paragraphs: list[str] = []


class _Figure(BaseModel):
    caption: str | None = ""


class _Paper(BaseModel):
    title: str | None = ""
    abstract: str | None = ""
    full_text: list[_Section] = []
    figures_and_tables: list[_Figure] = []
    qas: list[_Question] = []


_FORM = TypeAdapter(_Paper)


def load(paths: Sequence[Path]) -> Dataset:
    """Reads files of Qasper into one data set.

    References are `full` and `short`, a wording for each annotator who gives one. Of an answer the
    first of these counts: unanswerable, extractive spans (joined by commas), free form (`full`
    only), yes or no. A question is unanswerable when every annotator says so; otherwise
    *Unanswerable* stays a wording, behind the others, as in the official evaluation. Gold are the
    paragraphs and captions that any annotator marks, as far as the paper has them.

    Raises:
        InvalidInput: all mistakes (the first 20), by file, paper and field.
    """
    mistakes, papers, items, lost = list[Mistake](), dict[str, Document](), list[Item](), 0
    for path in paths:
        for name, value in _read(path).items():
            where = f"{path}, paper {name}"
            paper = in_form(_FORM, value, where)
            if isinstance(paper, Mistake):
                mistakes.append(paper)
                continue
            text = _text(paper)
            if name in papers or not text:
                what = "is in several files" if text else "has no text"
                mistakes.append(Mistake(where, what))
                continue
            papers[name] = Document(name, text, _line(paper.title or ""))
            for question in paper.qas:
                if not question.question.strip():
                    mistakes.append(Mistake(where, f"question {question.question_id} is blank"))
                items.append(_item(question, papers[name]))
                lost += len(_evidence(question)) - len(items[-1].gold_texts)
    refuse_all(mistakes, "the papers of Qasper")
    note = f"{lost} pieces of evidence are left out: the texts of their papers lack them."
    return Dataset("qasper", tuple(papers.values()), tuple(items), notes=(note,) if lost else ())


def _read(path: Path) -> dict[str, object]:
    content = json_of(path, "a file of Qasper 0.3")
    if not isinstance(content, dict) or not content:
        raise InvalidInput(
            f'{path} is not a file of Qasper 0.3: expected {{"<paper>": {{"full_text": …}}, …}}'
        )
    return content


def _text(paper: _Paper) -> str:
    """The paper as Markdown; each paragraph is a line, as evidence has it."""
    parts = [_line(paper.abstract or "")]
    for section in paper.full_text:
        parts.append(f"## {name}" if (name := _line(section.section_name or "")) else "")
        parts += map(_line, section.paragraphs)
    parts += (_line(figure.caption or "") for figure in paper.figures_and_tables)
    return "\n\n".join(filter(None, parts))


def _item(question: _Question, paper: Document) -> Item:
    answers = [annotation.answer for annotation in question.answers]
    given = [answer for answer in answers if not answer.unanswerable]
    refused = [UNANSWERABLE] if len(given) < len(answers) else []
    answerable = bool(given) or not answers
    styles = {"full": (one.full for one in given), "short": (one.short for one in given)}
    found = {style: _distinct(texts) for style, texts in styles.items()}
    return Item(
        id=question.question_id,
        question=question.question.strip(),
        references={
            style: (*texts, *refused) for style, texts in found.items() if texts or not answerable
        },
        gold_documents=(paper.id,) if answerable else (),
        gold_texts=tuple(text for text in _evidence(question) if text in paper.text),
        cluster=paper.id,
        answerable=answerable,
    )


def _evidence(question: _Question) -> tuple[str, ...]:
    given = (annotation.answer for annotation in question.answers)
    return _distinct(
        _line(text).removeprefix(_CAPTION)
        for answer in given
        if not answer.unanswerable
        for text in answer.evidence
    )


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, texts)))


def _line(text: str) -> str:
    """The text in one line, for evidence and paragraphs differ in their white space."""
    return " ".join(text.split())
