"""What a rater's page gave, checked against what was asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tuneproof.analysis.scores import answers_by_cell
from tuneproof.labels.sampling import Sample
from tuneproof.results import Rating, StudyResults, pair_digest
from tuneproof.servicekit.errors import InvalidInput

SCHEMA = "tuneproof.labels/1"

_SHOWN = 10
"""Most mistakes that a message lists."""


class _Label(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    task: str
    criterion: str
    first: int
    """Score of the answer that was shown first."""
    second: int


class _Sheet(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["tuneproof.labels/1"] = Field(alias="schema")
    study: str
    sample: str
    rater: Annotated[str, Field(min_length=1, max_length=80)]
    labels: list[_Label]


def ratings_of(
    value: Mapping[str, Any], sample: Sample, results: StudyResults
) -> tuple[str, tuple[Rating, ...]]:
    """The rater, and the ratings in the terms of the study.

    Raises:
        InvalidInput: the file has another form or belongs to another sample, or a label is of a
            pair that was not drawn, comes twice, is off its rubric's scale, or is of answers that
            have changed; one message lists the mistakes.
    """
    try:
        sheet = _Sheet.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"this is no file of labels: {place}: {first['msg']}") from None
    if sheet.sample != sample.digest:
        raise InvalidInput(
            f"these labels are of another sample ({sheet.sample[:19]}) than the one drawn for"
            f" {sample.study} ({sample.digest[:19]}): label the page of `study label export`"
        )
    rater = sheet.rater.strip()
    mistakes = [*_mistakes(sheet.labels, sample, results)]
    if not rater:
        mistakes.append("the rater has no name")
    if mistakes:
        more = len(mistakes) - _SHOWN
        listed = [*mistakes[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
        raise InvalidInput("\n".join(listed))
    tasks = {task.id: task for task in sample.tasks}
    found = []
    for label in sheet.labels:
        task = tasks[label.task]
        scores = (label.second, label.first) if task.swapped else (label.first, label.second)
        found.append(
            Rating(
                rater,
                task.cell,
                task.against,
                task.item,
                label.criterion,
                float(scores[0]),
                float(scores[1]),
                task.inclusion,
                task.again,
                task.texts,
            )
        )
    return rater, tuple(found)


def added(earlier: Sequence[Rating], now: Sequence[Rating]) -> tuple[Rating, ...]:
    """A rater's ratings after another file of theirs: the file may only go on from the earlier one.

    Raises:
        InvalidInput: it lacks or changes what the earlier one said.
    """
    if lost := set(earlier) - set(now):
        one = next(iter(lost))
        raise InvalidInput(
            f"{one.rater} has labelled already, and this file lacks or changes {len(lost)} of those"
            f" labels, as {one.criterion} of {one.item}: two labels of one pair are one too many;"
            " continue from the earlier file, or replace all of them with --replace"
        )
    return tuple(now)


def _mistakes(labels: Sequence[_Label], sample: Sample, results: StudyResults) -> Iterator[str]:
    tasks = {task.id: task for task in sample.tasks}
    answers = answers_by_cell(results)
    scales = {one.name: one for one in results.criteria if one.name in sample.criteria}
    seen = set()
    for label in labels:
        task, scale = tasks.get(label.task), scales.get(label.criterion)
        if task is None:
            yield f"the pair {label.task!r} was not sampled"
            continue
        name = f"the pair {label.task!r} ({task.item}), {label.criterion!r}"
        if scale is None:
            yield f"{name}: is not asked for; there are: {', '.join(scales)}"
            continue
        if (label.task, label.criterion) in seen:
            yield f"{name}: has two labels"
        seen.add((label.task, label.criterion))
        for score in (label.first, label.second):
            if not scale.low <= score <= (scale.high or score):
                yield f"{name}: {score} is not on the scale, {scale.words}"
        mine, theirs = (answers[cell].get(task.item) for cell in (task.cell, task.against))
        if not mine or not theirs or pair_digest(mine.text, theirs.text) != task.texts:
            yield f"{name}: an answer has changed since the page was written"
