"""S8, S9 and S11: families of comparisons, gates of several criteria, unscored answers.

S9 goes through whole studies, as the gate sees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from drawing import Tally

from tuneproof.analysis import Verdict, read
from tuneproof.analysis.comparisons import Pair
from tuneproof.analysis.families import (
    Adjustment,
    IntervalAt,
    family_tails,
    joined,
    read_tested,
)
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
CRITERIA = ("accuracy", "completeness")
MARGIN = 0.25
SCALE = Measure("accuracy", -1.0, 7.0, "points")
"""Wide enough for every drawn value: nothing is cut, so that means are as drawn."""


def s8(random: np.random.Generator, studies: int) -> Results:
    """Families of 4 and 18 comparisons: any false word, however the error is shared.

    Without any difference, and where half of the comparisons differ by so much that they leave
    their share of the error to the others.
    """
    false = {}
    for count in (4, 18):
        shares = {one: replace(_without_arm(1), adjustment=one) for one in Adjustment}
        for differing in (0, count // 2):
            tallies = {adjustment: Tally() for adjustment in Adjustment}
            for _ in range(studies):
                noise = 0.7 * random.normal(size=(count, 60))
                noise[:differing] += 1.0
                intervals = [_interval_at(one) for one in noise]
                for adjustment, tally in tallies.items():
                    results = shares[adjustment]
                    tails = family_tails(results, intervals)
                    tally.add(
                        any(
                            read_tested(joined(results, at, ends), MARGIN, ends).verdict in FALSE
                            for at, ends in list(zip(intervals, tails, strict=True))[differing:]
                        )
                    )
            for adjustment, tally in tallies.items():
                false[count, differing, adjustment] = tally.share
    same = {key: share for key, share in false.items() if not key[1]}
    return {
        "s8_4": max(share for (family, *_), share in same.items() if family == 4),
        "s8_18": max(share for (family, *_), share in same.items() if family == 18),
        **{
            f"s8_{adjustment}": max(
                share for (*_, how), share in false.items() if how is adjustment
            )
            for adjustment in Adjustment
        },
        "s8_max": max(false.values()),
    }


def _interval_at(differences: Floats) -> IntervalAt:
    """Of single items; each confidence is reckoned once."""
    pair = Pair.of(differences, np.zeros(60), np.arange(60), SCALE)
    return cache(pair.interval)


def s9(random: np.random.Generator, studies: int) -> Results:
    """Two criteria, one of them truly at -δ: how often the gate passes; and both better by .1."""
    found = {}
    for name, shifts, count in (
        ("s9_max", (-MARGIN, 1.0), studies),
        ("s9_pass", (0.1, 0.1), studies // 10),
    ):
        passed = Tally()
        for _ in range(count):
            values = np.array(shifts)[:, None] + 0.7 * random.normal(size=(2, 150))
            passed.add(decide(_study(values), Policy(), "tuned").passed)
        found[name] = passed.share
    return found


def s11(random: np.random.Generator, studies: int) -> Results:
    """1 and 5 % of answers unscored in the cell, 0 in the baseline, the worst ones first."""
    false, equivalent = [], {}
    for share in (0.01, 0.05):
        for items in (100, 400):
            words, same = Tally(), Tally()
            for _ in range(studies):
                values = 0.7 * random.normal(size=items)
                values[np.argsort(values)[: round(share * items)]] = np.nan
                pair = Pair.of(3.0 + values, np.full(items, 3.0), np.arange(items), SCALE)
                verdict = read(pair.interval(0.95), MARGIN).verdict
                words.add(verdict in FALSE)
                same.add(verdict is Verdict.EQUIVALENT)
            false.append(words.share)
            equivalent[share, items] = same.share
    rarer = max(equivalent[share, 100] - equivalent[share, 400] for share in (0.01, 0.05))
    return {"s11_max": max(false), "s11_rarer": max(0.0, rarer)}


def _study(differences: Floats) -> StudyResults:
    """One arm by two criteria, a row each, shape (2, n); the baseline has 3 points always."""
    empty = _without_arm(differences.shape[1])
    answers = [
        _answer("tuned", item.id, scores)
        for item, scores in zip(empty.items, (3.0 + differences.T).tolist(), strict=True)
    ]
    return replace(empty, answers=empty.answers + tuple(answers))


@cache
def _without_arm(items: int) -> StudyResults:
    """A study that has the baseline's answers only."""
    texts = [f"q{item}" for item in range(items)]
    training = Training("r", "a@sha256:0", {}, (), {}, 1, 1.0)
    study = results_of(
        [ItemResult(name, "?", {}, name, ()) for name in texts],
        [
            Cell("baseline", "Baseline", "baseline", 0, 0, None, tuned=False),
            Cell("tuned", "Tuned", "tuned", 1, 1, training),
        ],
        [_answer("baseline", name, [3.0] * len(CRITERIA)) for name in texts],
        criteria=CRITERIA,
        judge_checks=tuple(
            JudgeCheck(name, 100, 0, 0, 0.9, 0.8, 0.2, ((1,),), (1,), 0.3) for name in CRITERIA
        ),
    )
    return replace(study, criteria=tuple(replace(SCALE, name=name) for name in CRITERIA))


def _answer(cell: str, item: str, scores: Sequence[float]) -> Answer:
    grades = {
        name: CriterionGrade(name, "r@1", "", score, None, ())
        for name, score in zip(CRITERIA, scores, strict=True)
    }
    return Answer(cell, item, cell, "stop", 1, 1, 1.0, cell, Grade(grades, {}, "j"))
