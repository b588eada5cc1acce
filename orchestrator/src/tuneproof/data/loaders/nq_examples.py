"""One example of Natural Questions: its form, and the text of its page.

There are two forms: the original (`document_tokens`) and the simplified one (`document_text`, whose
tokens end at single spaces, so that it is cut by `split(" ")` and not by `split()`). The end of a
span is exclusive, and -1 stands for none. Tokens of HTML are left out of texts; where a block of
the page ends, a line ends.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BaseModel, TypeAdapter

from tuneproof.data.reading.records import Mistake
from tuneproof.data.reading.whole import in_form

Cut = tuple[int, int]
"""From a token to before another one."""

_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]*)[^<>]*>")
_BLOCKS = frozenset(
    ["p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "li", "dd", "dt", "table", "tr"]
)
_CELLS = frozenset({"td", "th"})
_END_OF_LINE, _NEXT_CELL, _NOTHING = "\n", "\t", ""
"""What stands in the place of tags."""
_GAPS = re.compile(r" +([,.;:!?%)\]}]|'s\b|n't\b)|([(\[{]) +")
"""A mark with the space that cutting into tokens put before or after it."""


class _Token(BaseModel):
    token: str
    html_token: bool


class _Span(BaseModel):
    start_token: int
    end_token: int

    @property
    def cut(self) -> Cut:
        return self.start_token, self.end_token


class _Candidate(_Span):
    top_level: bool = True


class _Annotation(BaseModel):
    long_answer: _Span
    short_answers: list[_Span] = []
    yes_no_answer: str = "NONE"


class Example(BaseModel):
    """A line of a file."""

    example_id: int | str
    question_text: str
    document_tokens: list[_Token] | None = None
    document_text: str | None = None
    document_title: str = ""
    document_url: str = ""
    long_answer_candidates: list[_Candidate] = []
    annotations: list[_Annotation] = []

    @cached_property
    def words(self) -> list[str]:
        """The tokens, with marks in the place of tags."""
        if self.document_tokens is not None:
            return [_mark(t.token) if t.html_token else t.token for t in self.document_tokens]
        tokens = (self.document_text or "").split(" ")
        return [_mark(token) if _TAG.fullmatch(token) else token for token in tokens]

    @property
    def page(self) -> tuple[str, str]:
        """The page's address, which tells its revision, and its title."""
        url = html.unescape(self.document_url)
        parts = urlsplit(url)
        named = parse_qs(parts.query).get("title", [parts.path.rpartition("/")[2]])[0]
        title = self.document_title or unquote(named).replace("_", " ")
        page = url or title or f"page of {self.example_id}"
        return page, title or page

    @property
    def metadata(self) -> dict[str, str]:
        """Of the page's documents."""
        return {"url": html.unescape(self.document_url)} if self.document_url else {}

    @property
    def has_answer(self) -> bool:
        """Whether two annotators give a long answer, or the only one."""
        given = sum(each.long_answer.start_token >= 0 for each in self.annotations)
        return given >= (2 if len(self.annotations) > 1 else 1)

    @property
    def long_answers(self) -> list[Cut]:
        """Each once, what most annotators chose first."""
        given = (each.long_answer.cut for each in self.annotations)
        return [cut for cut, _ in Counter(cut for cut in given if cut[0] >= 0).most_common()]

    @property
    def short_answers(self) -> tuple[str, ...]:
        """Each annotator's as one text, what most of them say first."""
        given = Counter(filter(None, map(self._short_answer, self.annotations)))
        return tuple(text for text, _ in given.most_common())

    def _short_answer(self, annotation: _Annotation) -> str:
        """The spans joined by commas, or yes or no; empty: there is none."""
        cuts = [span.cut for span in annotation.short_answers if span.start_token >= 0]
        texts = dict.fromkeys(filter(None, map(self.text, cuts)))
        word = annotation.yes_no_answer.lower()
        return ", ".join(texts) or (word if word in ("yes", "no") else "")

    def text(self, cut: Cut) -> str:
        """The words there, a line for each block of the page, ` | ` between cells of a table."""
        lines: list[list[str]] = [[]]
        for word in self.words[slice(*cut)]:
            if word == _END_OF_LINE:
                lines.append([])
            elif word == _NEXT_CELL:
                lines[-1] += ["|"] if lines[-1] else []
            elif word != _NOTHING:
                lines[-1].append(word)
        texts = (_GAPS.sub(r"\1\2", " ".join(words)) for words in lines)
        return "\n".join(text for text in texts if text)


_FORM = TypeAdapter(Example)


def read_example(line: str, where: str) -> Example | Mistake:
    """The example of a line, whose spans all lie in its page."""
    example = in_form(_FORM, line, where)
    if isinstance(example, Mistake):
        return example
    if example.document_tokens is None and example.document_text is None:
        return Mistake(where, "lacks document_tokens, and document_text of the simplified form")
    if not example.question_text.strip():
        return Mistake(where, "question_text is blank")
    count = len(example.words)
    for field, span in _spans(example):
        if not 0 <= span.start_token < span.end_token <= count:
            return Mistake(
                where,
                f"{field}: from token {span.start_token} to {span.end_token} is no part of the"
                f" {count} tokens of the page",
            )
    return example


def _spans(example: Example) -> Iterator[tuple[str, _Span]]:
    """Every span that is there, with the field that holds it."""
    for number, each in enumerate(example.annotations):
        where = f"annotations.{number}"
        if each.long_answer.start_token != -1:
            yield f"{where}.long_answer", each.long_answer
        for place, span in enumerate(each.short_answers):
            if span.start_token != -1:
                yield f"{where}.short_answers.{place}", span
    for number, candidate in enumerate(example.long_answer_candidates):
        yield f"long_answer_candidates.{number}", candidate


def _mark(tag: str) -> str:
    """What stands in the place of a tag."""
    match = _TAG.fullmatch(tag)
    name = match[2].lower() if match else ""
    if name in _BLOCKS:
        return _END_OF_LINE
    return _NEXT_CELL if match and name in _CELLS and not match[1] else _NOTHING
