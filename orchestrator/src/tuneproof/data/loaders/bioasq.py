"""BioASQ golden files: biomedical questions with ideal answers and snippets of PubMed.

A file holds only the snippets of each document, so the corpus consists of evidence and nothing
else: retrieval is easier than among all of PubMed, and the data set says so (`gold_only`).

Licence and files: http://participants-area.bioasq.org/datasets/ (registration, CC BY 2.5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneproof.data.components import components
from tuneproof.data.items import Dataset, Document, Item
from tuneproof.data.reading.records import refuse_all
from tuneproof.data.reading.whole import json_of
from tuneproof.servicekit.errors import InvalidInput

_PUBMED = re.compile(
    r"https?://(?:www\.ncbi\.nlm\.nih\.gov/pubmed|pubmed\.ncbi\.nlm\.nih\.gov)/(\d+)/?"
)


@dataclass(frozen=True, slots=True)
class _Snippet:
    document: str
    place: tuple[bool, str, int, int]
    """Title before the other sections, then the section's name and the offsets in it."""
    text: str


@dataclass(frozen=True, slots=True)
class _Question:
    id: str
    body: str
    references: Mapping[str, tuple[str, ...]]
    snippets: tuple[_Snippet, ...]


def load(*paths: Path | str) -> Dataset:
    """Reads golden files of Task B into one data set.

    A document is what the snippets of one PubMed entry say, in their order there, separated by
    blank lines; its id is `pubmed:<number>`. References are `full` (the ideal answers) and, for
    other questions than summaries, `exact`: yes or no, the synonyms of a factoid, or a list's
    entries joined by commas.

    Raises:
        InvalidInput: naming the file, and for broken JSON line and column; else all mistakes of
            all questions (the first 20) in one message.
    """
    if not paths:
        raise InvalidInput("path is missing: no BioASQ file was given", field="path")
    mistakes: list[str] = []
    questions: dict[str, _Question] = {}
    urls: dict[str, str] = {}
    for path in map(Path, paths):
        for number, raw in enumerate(_read(path), 1):
            where = f"{path.name}, question {number}"
            question = _parse(raw, where, mistakes, urls)
            if question is None:
                continue
            if question.id in questions:
                mistakes.append(f"{where}: the id {question.id} is that of an earlier question")
            questions[question.id] = question
    refuse_all(mistakes, "the BioASQ data")
    return _dataset(list(questions.values()), urls)


def _read(path: Path) -> list[Any]:
    content = json_of(path, "a BioASQ golden file")
    questions = content.get("questions") if isinstance(content, dict) else None
    if not isinstance(questions, list) or not questions:
        raise InvalidInput(
            f'{path} is not a BioASQ golden file: expected an object with a list "questions" that'
            " is not empty"
        )
    return questions


def _parse(raw: Any, where: str, mistakes: list[str], urls: dict[str, str]) -> _Question | None:
    """One question; None, and mistakes added, when it cannot be used."""
    if not isinstance(raw, dict):
        mistakes.append(f"{where}: is not an object")
        return None
    name = raw.get("id")
    if not isinstance(name, str) or not name.strip():
        mistakes.append(f"{where}: lacks an id")
        return None
    where = f"{where} (id {name})"
    before = len(mistakes)
    body = raw.get("body")
    if not isinstance(body, str) or not body.strip():
        mistakes.append(f"{where}: its body is empty")
    ideal = tuple(_texts(raw.get("ideal_answer")))
    if not ideal:
        mistakes.append(
            f"{where}: lacks an ideal_answer; test files without answers cannot be used"
        )
    snippets = tuple(_snippets(raw.get("snippets"), where, mistakes, urls))
    if len(mistakes) > before:
        return None
    exact = _exact(raw.get("exact_answer"), raw.get("type"))
    references = {"full": ideal} | ({"exact": exact} if exact else {})
    return _Question(name, str(body).strip(), references, snippets)


def _snippets(
    raw: Any, where: str, mistakes: list[str], urls: dict[str, str]
) -> Iterator[_Snippet]:
    if not isinstance(raw, list) or not raw:
        mistakes.append(f"{where}: lacks snippets, so nothing in the corpus answers it")
        return
    for number, snippet in enumerate(raw, 1):
        entry = snippet if isinstance(snippet, dict) else {}
        url, text = entry.get("document"), entry.get("text")
        if not isinstance(url, str) or not url or not isinstance(text, str) or not text.strip():
            mistakes.append(f"{where}: snippet {number} lacks a document or a text")
            continue
        match = _PUBMED.fullmatch(url.strip())
        document = f"pubmed:{match[1]}" if match else url.strip()
        urls.setdefault(document, url.strip())
        section = str(entry.get("beginSection", ""))
        place = (section != "title", section, *_offsets(entry))
        yield _Snippet(document, place, text.strip())


def _offsets(entry: Mapping[str, Any]) -> tuple[int, int]:
    begin, end = entry.get("offsetInBeginSection"), entry.get("offsetInEndSection")
    return (begin if isinstance(begin, int) else 0, end if isinstance(end, int) else 0)


def _exact(raw: Any, kind: Any) -> tuple[str, ...]:
    """The exact answer's wordings: synonyms side by side, or a list's entries as one text."""
    if kind == "list" and isinstance(raw, list):
        entries = [next(_texts(entry), "") for entry in raw]
        joined = ", ".join(dict.fromkeys(entry for entry in entries if entry))
        return (joined,) if joined else ()
    return tuple(dict.fromkeys(_texts(raw)))


def _texts(raw: Any) -> Iterator[str]:
    """The texts in a text or in lists of texts, however nested; blank ones left out."""
    if isinstance(raw, str) and raw.strip():
        yield raw.strip()
    elif isinstance(raw, list):
        for entry in raw:
            yield from _texts(entry)


def _dataset(questions: list[_Question], urls: Mapping[str, str]) -> Dataset:
    found: dict[str, list[_Snippet]] = {}
    for question in questions:
        for snippet in question.snippets:
            found.setdefault(snippet.document, []).append(snippet)
    cluster = components({q.id: [s.document for s in q.snippets] for q in questions})
    items = tuple(
        Item(
            id=question.id,
            question=question.body,
            references=question.references,
            gold_documents=tuple(dict.fromkeys(s.document for s in question.snippets)),
            gold_texts=tuple(dict.fromkeys(s.text for s in question.snippets)),
            cluster=cluster[question.id],
        )
        for question in questions
    )
    documents = tuple(
        Document(id=name, text=_text_of(snippets), metadata={"url": urls[name]})
        for name, snippets in sorted(found.items())
    )
    note = (
        f"Of BioASQ's {len(documents)} documents the corpus has the gold snippets only, so that"
        " retrieval is easier among them than among whole articles."
    )
    return Dataset("bioasq", documents, items, gold_only=True, notes=(note,))


def _text_of(snippets: list[_Snippet]) -> str:
    """The distinct snippets in their order in the article; one within another is left out."""
    texts = list(dict.fromkeys(s.text for s in sorted(snippets, key=lambda s: s.place)))
    return "\n\n".join(
        text for text in texts if not any(text != other and text in other for other in texts)
    )
