"""One calibration from the set to its figures, and what it will take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from tuneproof.calibration.figures import Figures, Scale, ceiling_of, figures_of, preferences_of
from tuneproof.calibration.forms import FormAgreement, grade_both_ways
from tuneproof.calibration.grading import Asking, Graded, askable, compare_set, grade_set
from tuneproof.calibration.loading import LabelledSet
from tuneproof.calibration.words import matches
from tuneproof.rubrics import Rubric
from tuneproof.sdk import JudgeClient
from tuneproof.servicekit.errors import InvalidInput

_CHARACTERS_A_TOKEN = 4.0
"""Of English text, roughly; only an estimate stands on it."""
_SHARES = Scale(0.0, 1.0)
_WORDS = ("token_f1", "rouge_l", "embedding_similarity", "bert_score")


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a calibration asks of the judge's endpoint; tokens are estimated."""

    answers: int
    completions: int
    prompt_tokens: int
    """At most: one request for all repeats of a prompt reads it once."""
    completion_tokens: int
    """At most: every completion as long as the rubric allows."""

    def price(self, prompt: float, completion: float) -> float:
        """By prices of a million tokens, without a discount for cached ones."""
        return (self.prompt_tokens * prompt + self.completion_tokens * completion) / 1e6


@dataclass(frozen=True, slots=True)
class Found:
    """What a calibration found."""

    judge_model: str
    sources: tuple[Figures, ...]
    """The judge's first."""
    position_bias: float | None = None
    """Mean over the pairs, where pairs were compared."""
    forms: tuple[FormAgreement, ...] = ()
    """One form for several criteria beside a form for each, where that was asked for."""
    refused: tuple[str, ...] = ()
    """Parameters that the judge's endpoint refuses, and was asked without, as `temperature`."""


def forecast(
    labelled: LabelledSet, asking: Asking, *, compare: bool, joint: Sequence[Rubric] = ()
) -> Forecast:
    """What `calibrate` will ask for."""
    if joint:
        # A form for each, and one that is about as long as all of them.
        forms = [
            forecast(labelled, replace(asking, rubric=one), compare=False)
            for one in (asking.rubric, *joint)
        ]
        return Forecast(
            forms[0].answers,
            sum(one.completions for one in forms) + forms[0].completions,
            2 * sum(one.prompt_tokens for one in forms),
            2 * sum(one.completion_tokens for one in forms),
        )
    rubric = asking.rubric
    own = len(rubric.template) + len(rubric.description) + len(rubric.form)
    own += sum(map(len, rubric.steps)) + sum(map(len, rubric.scale.values()))
    sizes = {
        one.id: len(one.question) + len(one.answer) + len("".join(one.references[:1]))
        + len("".join(one.passages))
        for one in askable(labelled, rubric)
    }  # fmt: skip
    if compare:
        prompts = [own + sizes[one.first] + sizes[one.second] for one in labelled.pairs]
    else:
        prompts = [own + size for size in sizes.values()]
    once = asking.mode == "weighted" and rubric.reasoning != "before"
    each = (1 if once else asking.repeats) * (2 if compare else 1)
    completions = len(prompts) * each
    characters = sum(prompts) * each
    return Forecast(
        len(prompts),
        completions,
        round(characters / _CHARACTERS_A_TOKEN),
        completions * rubric.max_tokens,
    )


def beside(labelled: LabelledSet) -> tuple[Figures, ...]:
    """What needs no judge: lexical match, of pairs the longer answer; other judges and people."""
    scale = labels_scale(labelled, None)
    if labelled.pairs:
        words = {one.id: float(len(one.answer.split())) for one in labelled.answers}
        found = [figures_of(labelled, words, _SHARES, "the longer answer", scale)]
    else:
        match = {
            one.id: float(matches(one.answer, one.references))
            for one in labelled.answers
            if one.references
        }
        found = [figures_of(labelled, match, _SHARES, "lexical match", scale)]
    found += [
        figures_of(labelled, said, _SHARES, judge, scale) for judge, said in labelled.judges.items()
    ]
    found.append(ceiling_of(labelled, scale))
    return tuple(each for each in found if each is not None)


async def calibrate(
    judge: JudgeClient,
    labelled: LabelledSet,
    asking: Asking,
    kept: Path,
    *,
    compare: bool = False,
    joint: Sequence[Rubric] = (),
    tell: Callable[[int, int], None] = lambda _done, _all: None,
) -> Found:
    """Grades the set, and sets the grades beside people, words and length.

    Args:
        joint: further rubrics, by which the judge also scores, alone and all in one form.

    Raises:
        InvalidInput: nothing can be graded.
        WrongState, TuneproofError: as `grade_set`.
    """
    rubric = asking.rubric
    if not askable(labelled, rubric):
        raise InvalidInput(f"no answer of {labelled.name} has what the rubric {rubric.id} reads")
    work = compare_set if compare else grade_set
    graded = await work(judge, labelled, asking, kept, tell=tell)
    models = {one.judge_model for one in graded.values()}
    scale = labels_scale(labelled, rubric)
    own = Scale(float(rubric.low), float(rubric.high))
    judged = (
        _compared(labelled, graded)
        if compare
        else figures_of(
            labelled, {name: one.mean for name, one in graded.items()}, own, "judge", scale
        )
    )
    if judged is None:
        raise InvalidInput(f"the judge scored no answer of {labelled.name}")
    words: list[Figures] = []
    forms: tuple[FormAgreement, ...] = ()
    if joint:
        forms, together = await grade_both_ways(
            judge, labelled, asking, (rubric, *joint), kept, tell=tell
        )
        figures = figures_of(labelled, together, own, "judge, one form", scale)
        words += [figures] if figures else []
    for measure in () if compare else _WORDS:
        scores = {
            name: None if (value := one.lexical.get(measure)) is None else max(value, 0.0)
            for name, one in graded.items()
            if one.lexical
        }
        if (figures := figures_of(labelled, scores, _SHARES, measure, scale)) is not None:
            words.append(figures)
    biases = [one.position_bias for one in graded.values() if one.position_bias is not None]
    return Found(
        next(iter(models)),
        (judged, *words, *beside(labelled)),
        fmean(biases) if biases else None,
        forms,
        tuple(sorted({name for one in graded.values() for name in one.refused})),
    )


def labels_scale(labelled: LabelledSet, rubric: Rubric | None) -> Scale:
    """Of people's labels: right and wrong, or the rubric's scale.

    Raises:
        InvalidInput: labels lie outside the rubric's scale.
    """
    labels = [one.label for one in labelled.answers if one.label is not None]
    if labelled.pairs or labelled.binary or rubric is None:
        return (
            Scale(0.0, 1.0)
            if labelled.pairs or labelled.binary
            else Scale(min(labels), max(labels))
        )
    if min(labels) < rubric.low or max(labels) > rubric.high:
        raise InvalidInput(
            f"{labelled.name} has labels from {min(labels):g} to {max(labels):g}, and the rubric"
            f" {rubric.id} goes from {rubric.low} to {rubric.high}"
        )
    return Scale(float(rubric.low), float(rubric.high))


def first_of(labelled: LabelledSet, count: int) -> LabelledSet:
    """The answers of the first clusters, so many answers or pairs at least, for a cheap look."""
    units: Sequence[str] = [one.cluster for one in labelled.pairs or labelled.answers]
    clusters: set[str] = set(units[:count])
    answers = tuple(one for one in labelled.answers if one.cluster in clusters)
    pairs = tuple(one for one in labelled.pairs if one.cluster in clusters)
    return replace(labelled, answers=answers, pairs=pairs)


def _compared(labelled: LabelledSet, graded: dict[str, Graded]) -> Figures | None:
    found = [graded.get(f"{one.first} {one.second}") for one in labelled.pairs]
    return preferences_of(labelled.pairs, [one.mean if one else None for one in found], "judge")
