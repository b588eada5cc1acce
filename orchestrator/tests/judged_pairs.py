"""A study of one tuned cell whose differences, labels and unscored answers tests choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tuneproof.results import (
    Alone,
    Answer,
    Cell,
    CriterionGrade,
    Grade,
    ItemResult,
    JudgeCheck,
    Rating,
    Retrieved,
    StudyResults,
    Training,
)
from tuneproof.results.testing import results_of

REF = "tuned@sha256:" + "ab" * 32
CHECK = JudgeCheck("accuracy", 100, 0, 0, 0.9, 0.8, 0.2, ((1,),), (1,), 0.3)


def judged(
    differences: Sequence[float],
    people: Mapping[int, float] | None = None,
    *,
    unscored: Sequence[int] = (),
    missed: Sequence[int] = (),
    seconds: float = 1.0,
    tokens: int = 10,
    **more: Any,
) -> StudyResults:
    """Each item a cluster of its own; the baseline always gets 3 points.

    Args:
        differences: of the tuned cell from the baseline, by the judge.
        people: differences by people, by item.
        unscored: items whose tuned answer the judge could not score.
        missed: items whose passages lack the evidence.
        seconds, tokens: of a tuned answer; the baseline takes 1 s and 10.
    """
    answers = []
    for item, difference in enumerate(differences):
        for cell, score in (("baseline", 3.0), ("tuned", 3.0 + difference)):
            lost = cell == "tuned" and item in unscored
            grade = CriterionGrade("accuracy", "a@1", "", None if lost else score, None, ())
            answers.append(
                Answer(cell, f"q{item}", f"{cell} answers q{item}", "stop", 90,
                       tokens if cell == "tuned" else 10, 1.0, cell,
                       Grade({"accuracy": grade}, {}, "judge"))
            )  # fmt: skip
    labels = [
        Rating("ann", "tuned", "baseline", f"q{item}", "accuracy", 3.0 + by, 3.0, 0.25)
        for item, by in (people or {}).items()
    ]
    training = Training("run", REF, {}, (), {}, 100, 1.0)
    found: dict[str, Any] = {"labels": tuple(labels), "judge_checks": (CHECK,), **more}
    return results_of(
        [
            ItemResult(
                f"q{item}",
                "?",
                {"full": ("a",)},
                f"d{item}",
                (Retrieved("p", "d", "text", 1.0, gold=item not in missed),),
            )
            for item in range(len(differences))
        ],
        [
            Cell(
                "baseline",
                "Baseline",
                "baseline",
                0,
                0,
                None,
                tuned=False,
                alone=Alone(5, 1.0, 0.1, 0.0),
            ),
            Cell("tuned", "Tuned", "tuned", 100, 1, training, alone=Alone(5, seconds, 0.1, 0.0)),
        ],
        answers,
        criteria=["accuracy"],
        **found,
    )


def around(centre: float, spread: float = 0.5, count: int = 200) -> list[float]:
    """Differences whose mean is exactly `centre`, in a fixed shuffled order."""
    values = np.resize([centre - spread, centre + spread], count)
    return [float(each) for each in np.random.default_rng(1).permutation(values)]
