"""What `tuneproof data check` finds, as lines and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuneproof.data.examining import Examination, examine
from tuneproof.data.items import Dataset
from tuneproof.data.lengths import Lengths, Tokenizer, open_tokenizer
from tuneproof.data.near_duplicates import NearPair
from tuneproof.data.splits import Split, check_leakage, split
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design.plan import make_plan
from tuneproof.study.design.spec import DataSpec, StudySpec
from tuneproof.study.design.specfile import load_spec

_SHOWN = 5


@dataclass(frozen=True)
class Checked:
    """The outcome."""

    value: dict[str, Any]
    """For machines."""
    lines: tuple[str, ...]
    """For people."""
    problems: tuple[str, ...]
    """Why a study on these data would be refused."""


def check(file: Path, spec: DataSpec, dataset: Dataset, *, model: str, near: float) -> Checked:
    """Examines a data set as the file's study would use it.

    Raises:
        InvalidInput: the study file has other mistakes, or the model has no tokenizer that can be
            read.
    """
    study = load_spec(file) if spec.study else None
    parts, problems = _divided(spec, study, dataset)
    found = examine(dataset, parts, near=near)
    tokenizer = _tokenizer(file, study, model)
    lengths = _lengths(dataset, tokenizer) if tokenizer else {}
    prompt = _prompt(study, lengths) if study and lengths else 0
    value = {
        **asdict(found),
        "problems": problems,
        "context": tokenizer.context if tokenizer else 0,
        "longest_prompt": prompt,
        "lengths": {name: asdict(each) for name, each in lengths.items()},
    }
    lines = [*_counts(found), *_warnings(found)]
    if tokenizer:
        lines += _tokens(tokenizer, lengths, prompt)
    lines += [f"problem: {problem}" for problem in problems]
    return Checked(value, tuple(lines), tuple(problems))


def _divided(
    spec: DataSpec, study: StudySpec | None, dataset: Dataset
) -> tuple[Split | None, list[str]]:
    """Tuning and test, and why a study cannot use them."""
    if spec.split is None:
        return None, []
    try:
        parts = split(
            dataset,
            seed=spec.split.seed,
            test_share=spec.split.test_share,
            test_items=spec.split.test_items,
        )
    except InvalidInput as error:
        return None, [error.message]
    try:
        if study is None:
            check_leakage(parts, dataset)
        else:
            make_plan(study, dataset)
    except InvalidInput as error:
        return parts, [error.message]
    return parts, []


def _tokenizer(file: Path, study: StudySpec | None, model: str) -> Tokenizer | None:
    named = file.resolve().parent / study.services.model if study and study.services.model else None
    if not model and named is not None and (named / "tokenizer.json").is_file():
        return open_tokenizer(str(named))
    return open_tokenizer(model) if model else None


def _lengths(dataset: Dataset, tokenizer: Tokenizer) -> dict[str, Lengths]:
    """Of the questions, and of the first reference by style, which is what an arm is tuned on."""
    texts = {"question": {item.id: item.question for item in dataset.items}}
    for item in dataset.items:
        for style, wordings in item.references.items():
            texts.setdefault(style, {})[item.id] = wordings[0]
    return {name: tokenizer.lengths(each) for name, each in texts.items()}


def _prompt(study: StudySpec, lengths: dict[str, Lengths]) -> int:
    """Tokens of the longest prompt and its answer, with the embedder's tokens as the model's."""
    answer = max([study.generation.max_tokens, *(each.longest for each in lengths.values())])
    return study.retrieval.k * study.corpus.max_tokens + lengths["question"].longest + answer


def _counts(found: Examination) -> Iterator[str]:
    rows: dict[str, Any] = {
        "data set": found.name,
        "questions": f"{found.items} in {found.clusters} clusters",
        "unanswerable": found.unanswerable,
        "tuning, test": f"{found.tuning}, {found.test}" if found.test else "no split is named",
        "references": ", ".join(f"{style} {count}" for style, count in found.styles.items()),
        "documents": f"{found.documents}, {found.gold_documents} of them gold for a question",
    }
    yield from (f"{name:<13} {value}" for name, value in rows.items())
    yield from (f"note: {note}" for note in found.notes)


def _warnings(found: Examination) -> Iterator[str]:
    groups: dict[str, Sequence[str]] = {
        "questions whose evidence is unknown: retrieval is not measured with them": (
            found.without_gold
        ),
        "questions with evidence that their documents do not hold verbatim": found.lost_evidence,
        "questions that are asked more than once": [*map(" = ".join, found.same_questions)],
        "documents with the same text": [*map(" = ".join, found.same_documents)],
        "tuning and test questions that are nearly the same": _pairs(found.near_questions),
        "gold documents of tuning and of test that are nearly the same": (
            _pairs(found.near_documents)
        ),
        "documents that are nearly a gold one, and count as a miss": _pairs(found.near_gold),
    }
    for what, names in groups.items():
        if names:
            more = "; …" if len(names) > _SHOWN else ""
            yield f"warning: {what} ({len(names)}): {'; '.join(names[:_SHOWN])}{more}"


def _pairs(pairs: Sequence[NearPair]) -> list[str]:
    return [f"{pair.one} ~ {pair.other} ({pair.similarity:.2f})" for pair in pairs]


def _tokens(tokenizer: Tokenizer, lengths: dict[str, Lengths], prompt: int) -> Iterator[str]:
    for name, each in lengths.items():
        yield (
            f"{name + ' tokens':<13} {each.median} median, {each.p95} at 95 %, {each.longest} at"
            f" most ({each.longest_id})"
        )
    if prompt:
        context = tokenizer.context or "an unknown number of"
        kind = "warning" if 0 < tokenizer.context < prompt else "note"
        yield (
            f"{kind}: the longest prompt with its answer takes about {prompt} tokens; the model"
            f" reads {context}"
        )
