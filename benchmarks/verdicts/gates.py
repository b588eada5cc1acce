"""S8, S9 and S11: families of comparisons, gates of several criteria, unscored answers.

These go through whole studies, as `compare` and the gate see them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from drawing import POINTS, Tally, alike

from tuneproof.analysis import Verdict, compare
from tuneproof.analysis.intervals import Floats
from tuneproof.gate import Policy, decide
from tuneproof.results import (
    Answer,
    Cell,
    CriterionGrade,
    Grade,
    ItemResult,
    JudgeCheck,
    Measure,
    StudyResults,
    Training,
)
from tuneproof.results.testing import results_of

Results = dict[str, float]

FALSE = (Verdict.BETTER, Verdict.WORSE)
MARGIN = 0.25
SHARE = 10
"""A whole study takes many times as long as an interval: one in so many is made."""


def s8(random: np.random.Generator, studies: int) -> Results:
    """Families of 4 and 18 comparisons without any difference: any false word."""
    found = {}
    for arms in (2, 9):
        false = Tally()
        for _ in range(max(studies // SHARE, 10)):
            items, clusters = 60, np.arange(60)
            values = [0.7 * alike(random, clusters, 0.0) for _ in range(2 * arms)]
            comparisons = compare(_study(values, items, arms))
            false.add(any(one.verdict in FALSE for one in comparisons.primary))
        found[f"s8_{2 * arms}"] = false.share
    return {**found, "s8_max": max(found.values())}


def s9(random: np.random.Generator, studies: int) -> Results:
    """Two criteria, one of them truly at -δ: how often the gate passes; and both better by .1."""
    found = {}
    for name, shifts in (("s9_max", (-MARGIN, 1.0)), ("s9_pass", (0.1, 0.1))):
        passed = Tally()
        for _ in range(max(studies // SHARE, 10)):
            items, clusters = 200, np.arange(200)
            values = [shift + 0.7 * alike(random, clusters, 0.0) for shift in shifts]
            passed.add(decide(_study(values, items, 1), Policy(), "arm-0").passed)
        found[name] = passed.share
    return found


def s11(random: np.random.Generator, studies: int) -> Results:
    """1 and 5 % of answers unscored in the cell, 0 in the baseline, the worst ones first."""
    false, equivalent = [], {}
    for share in (0.01, 0.05):
        for items in (100, 400):
            words, same = Tally(), Tally()
            for _ in range(max(studies // SHARE, 10)):
                clusters = np.arange(items)
                values = 0.7 * alike(random, clusters, 0.0)
                results = _without_worst(_study([values, values], items, 1), values, share)
                verdicts = [one.verdict for one in compare(results).primary]
                words.add(any(verdict in FALSE for verdict in verdicts))
                same.add(Verdict.EQUIVALENT in verdicts)
            false.append(words.share)
            equivalent[share, items] = same.share
    rarer = max(equivalent[share, 100] - equivalent[share, 400] for share in (0.01, 0.05))
    return {"s11_max": max(false), "s11_rarer": max(0.0, rarer)}


def _study(differences: list[Floats], items: int, arms: int) -> StudyResults:
    """Each arm by two criteria; the baseline has 3 points always."""
    names = ("accuracy", "completeness")
    texts = [f"q{item}" for item in range(items)]
    arm_names = [f"arm-{arm}" for arm in range(arms)]
    answers = [_answer("baseline", name, dict.fromkeys(names, 3.0)) for name in texts]
    for arm, cell in enumerate(arm_names):
        answers += [
            _answer(
                cell,
                name,
                {
                    criterion: float(3.0 + differences[2 * arm + place][item])
                    for place, criterion in enumerate(names)
                },
            )
            for item, name in enumerate(texts)
        ]
    training = Training("r", "a@sha256:0", {}, (), {}, 1, 1.0)
    study = results_of(
        [ItemResult(name, "?", {}, name, ()) for name in texts],
        [
            Cell("baseline", "Baseline", "baseline", 0, 0, None, tuned=False),
            *(Cell(name, name, name, 1, 1, training) for name in arm_names),
        ],
        answers,
        # Wide enough for every drawn value: nothing is cut, so that means are as drawn.
        criteria=names,
        judge_checks=tuple(
            JudgeCheck(name, 100, 0, 0, 0.9, 0.8, 0.2, ((1,),), (1,), 0.3) for name in names
        ),
    )
    low, high = 3.0 + POINTS[0] / 2 - 2.0, 3.0 + POINTS[1] / 2 + 2.0
    return replace(study, criteria=tuple(Measure(name, low, high, "points") for name in names))


def _answer(cell: str, item: str, scores: dict[str, float | None]) -> Answer:
    grades = {
        name: CriterionGrade(name, "r@1", "", score, None, ()) for name, score in scores.items()
    }
    return Answer(cell, item, f"{cell} {item}", "stop", 1, 1, 1.0, cell, Grade(grades, {}, "j"))


def _without_worst(results: StudyResults, values: Floats, share: float) -> StudyResults:
    """The judge could not score the cell's worst answers."""
    lost = {f"q{item}" for item in np.argsort(values)[: round(share * len(values))]}
    answers = tuple(
        _answer(one.cell, one.item, {"accuracy": None, "completeness": None})
        if one.cell != "baseline" and one.item in lost
        else one
        for one in results.answers
    )
    return replace(results, answers=answers)
