"""Checks of the instruments: the reader with the evidence before it, the judge on known scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tuneproof.data.items import JudgeForm
from tuneproof.data.sources import KnownWorld
from tuneproof.results import Answer, Grade, JudgeCheck, Measure, ReaderCheck
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design.plan import Plan


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its passages, for a model."""

    id: str
    question: str
    references: tuple[str, ...]
    passages: tuple[str, ...]


def oracle_questions(plan: Plan) -> tuple[Question, ...]:
    """Questions for the reader's check: the test's first, then others of the data set.

    Raises:
        InvalidInput: the data set cannot make such passages.
    """
    check = plan.spec.checks.reader
    if check is None:
        return ()
    world = _world(plan, "checks.reader")
    tested = {item.id for item in plan.test}
    others = (item for item in plan.dataset.items if item.id not in tested)
    return tuple(
        Question(
            item.id,
            item.question,
            item.references[plan.spec.references],
            tuple(world.oracle_context(plan.dataset, item, check.facts)),
        )
        for item in [*plan.test, *others][: check.items]
    )


def judge_forms(plan: Plan) -> tuple[JudgeForm, ...]:
    """Answers whose right scores are known, for the judge's check.

    Raises:
        InvalidInput: the data set has none.
    """
    check = plan.spec.checks.judge
    return tuple(_world(plan, "checks.judge").judge_forms(check.forms)) if check else ()


def answers_as_forms(plan: Plan, answers: Sequence[Answer]) -> list[tuple[JudgeForm, Grade]]:
    """What the cells answered and the judge judged, each wording once, with the right scores.

    Empty for a data set whose right scores are not known.
    """
    world = plan.spec.dataset.world
    if world is None:
        return []
    items = {item.id: item for item in plan.test}
    found: dict[tuple[str, str], tuple[JudgeForm, Grade]] = {}
    for answer in answers:
        if answer.grade is None or not answer.grade.criteria:
            continue
        item = items[answer.item]
        reference = item.references[plan.spec.references][0]
        if plan.spec.references == "full" and (item.id, answer.text) not in found:
            scores = world.score(reference, answer.text)
            form = JudgeForm(item.id, item.question, reference, answer.text, scores)
            found[item.id, answer.text] = (form, answer.grade)
    return list(found.values())


def reader_check(facts: int, grades: Sequence[Grade], model: str) -> ReaderCheck | None:
    """What the reader's check found of a base; None when nothing was scored."""
    if not grades:
        return None
    exact = sum(grade.lexical["exact_match"] for grade in grades) / len(grades)
    return ReaderCheck(facts, len(grades), exact, model)


def judge_check(
    measure: Measure,
    forms: Sequence[tuple[JudgeForm, Grade]],
    answers: Sequence[tuple[JudgeForm, Grade]],
) -> JudgeCheck | None:
    """What the judge's check found of one criterion.

    A form that could not be scored counts as not exact; κ, error and matrix are over the others.

    Args:
        measure: a criterion, with the scale of the rubric that scores it.
        forms: made for the check.
        answers: of the study's cells, from `answers_as_forms`.

    Returns:
        None without judged forms, or where the forms' right scores by this criterion are unknown
        or off the rubric's scale.
    """
    from tuneproof.analysis.agreement import (  # noqa: PLC0415 - scipy is slow to load
        confusion_matrix,
        weighted_kappa,
    )

    criterion, levels = measure.name, _levels(measure)
    scales = {form.levels for form, _ in forms if criterion in form.scores}
    if scales != {levels}:
        return None
    judged = [
        (form.scores[criterion], grade.criteria[criterion])
        for form, grade in (*forms, *answers)
        if criterion in form.scores and criterion in grade.criteria
    ]
    pairs = [(right, score.mean) for right, score in judged if score.mean is not None]
    truth = [right for right, _ in pairs]
    given = [rounded(mean) for _, mean in pairs]
    spreads = [s.standard_deviation for _, s in judged if s.standard_deviation is not None]
    matrix = confusion_matrix(truth, given, levels)
    return JudgeCheck(
        criterion=criterion,
        forms=len(judged),
        from_cells=sum(criterion in grade.criteria for _, grade in answers),
        unscored=len(judged) - len(pairs),
        exact=int(matrix.trace()) / len(judged),
        weighted_kappa=weighted_kappa(truth, given, levels) if pairs else 0.0,
        mean_absolute_error=_mean([abs(right - mean) for right, mean in pairs]),
        confusion=tuple(map(tuple, matrix.tolist())),
        levels=levels,
        repeat_sd=_mean(spreads),
    )


def _levels(measure: Measure) -> tuple[int, ...]:
    """The whole scores of a criterion, lowest first; empty where its range is not known."""
    if measure.high is None:
        return ()
    return tuple(range(math.ceil(measure.low), math.floor(measure.high) + 1))


def rounded(mean: float) -> int:
    """The nearest score; a half goes up."""
    return math.floor(mean + 0.5)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _world(plan: Plan, field: str) -> KnownWorld:
    source = plan.spec.dataset
    if source.world is None:
        raise InvalidInput(
            f"{field} needs a data set whose right answers a program knows (telecom),"
            f" not {source.name}",
            field=field,
        )
    return source.world
