"""Several criteria in one form beside a form for each: how far the two instruments agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tuneproof.analysis.agreement import weighted_kappa
from tuneproof.analysis.intervals import codes_of
from tuneproof.calibration.figures import Figure, jackknifed, mean_of
from tuneproof.calibration.grading import Asking, Tell, askable, grade_jointly, grade_set
from tuneproof.calibration.loading import LabelledAnswer, LabelledSet
from tuneproof.rubrics import Rubric
from tuneproof.sdk import JudgeClient


@dataclass(frozen=True, slots=True)
class FormAgreement:
    """One criterion, over the answers that both ways score."""

    criterion: str
    answers: int
    unscored: int
    """Answers that one of the two did not score."""
    separate: float
    """Mean score in a form of its own."""
    joint: float
    """Mean score in the form with the others."""
    difference: Figure
    """The second less the first, in the rubric's unit."""
    exact: Figure
    """Share of the answers whose means round to one score."""
    kappa: Figure
    """Between these scores, with quadratic weights."""


Means = Mapping[str, float | None]
"""By answer; None is unscored."""


async def grade_both_ways(
    judge: JudgeClient,
    labelled: LabelledSet,
    asking: Asking,
    rubrics: Sequence[Rubric],
    kept: Path,
    *,
    tell: Tell,
) -> tuple[tuple[FormAgreement, ...], Means]:
    """Grades the answers that have what all rubrics read, by each rubric alone and by all in one
    form; also gives the means of the first rubric in that form.

    Raises:
        WrongState, TuneproofError: as `grade_set`.
    """
    known = [{one.id for one in askable(labelled, rubric)} for rubric in rubrics]
    shared = set.intersection(*known)
    some = replace(labelled, answers=tuple(one for one in labelled.answers if one.id in shared))
    together = await grade_jointly(judge, some, asking, rubrics, kept, tell=tell)
    found = []
    for rubric in rubrics:
        alone = await grade_set(judge, some, replace(asking, rubric=rubric), kept, tell=tell)
        separate = {name: one.mean for name, one in alone.items()}
        joint = {name: one.means[rubric.criterion] for name, one in together.items()}
        if (agreement := agreement_of(rubric, some.answers, separate, joint)) is not None:
            found.append(agreement)
    return tuple(found), {name: one.mean for name, one in together.items()}


def agreement_of(
    rubric: Rubric, answers: Sequence[LabelledAnswer], separate: Means, joint: Means
) -> FormAgreement | None:
    """How far two ways to one criterion agree; None where no answer is scored both ways."""
    both = [
        (one.cluster, first, second)
        for one in answers
        if (first := separate.get(one.id)) is not None and (second := joint.get(one.id)) is not None
    ]
    if not both:
        return None
    clusters = codes_of([cluster for cluster, _, _ in both])
    alone, together = (np.array([one[n] for one in both], dtype=np.float64) for n in (1, 2))
    rounded = [np.floor(each + 0.5).astype(int) for each in (alone, together)]
    width = float(rubric.high - rubric.low)
    return FormAgreement(
        rubric.criterion,
        len(both),
        len(answers) - len(both),
        float(alone.mean()),
        float(together.mean()),
        mean_of(together - alone, clusters, (-width, width)),
        mean_of((rounded[0] == rounded[1]).astype(np.float64), clusters),
        jackknifed(
            lambda at: weighted_kappa(
                rounded[0][at].tolist(), rounded[1][at].tolist(), tuple(rubric.scores)
            ),
            clusters,
        ),
    )
