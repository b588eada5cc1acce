"""How a judge's scores differ from people's, and how much difference a verdict bears."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuneproof.analysis.intervals import Codes, Estimate, Floats, Interval
from tuneproof.analysis.verdict import Verdict, read
from tuneproof.analysis.weighted import hajek
from tuneproof.servicekit.errors import InvalidInput


def judge_bias(
    judge: Floats,
    human: Floats,
    groups: Sequence[str],
    clusters: Codes,
    inclusion: Floats | None = None,
) -> dict[str, Estimate]:
    """The judge's mean error J - H in each group of labelled answers, positive where it is lenient.

    A bias that is the same in both arms leaves their difference right; one that differs by arm does
    not. Groups are arms, or `thirds_by_length`, or both: `fine_tuned, long`. Each estimate is
    Hájek's with CR2 over the clusters of its group (`weighted.hajek`); `intervals.interval_of`
    gives its interval. Groups share items and clusters, so their estimates are not independent:
    the bias between two arms is `anchoring.Anchored.bias`, which is paired.

    Args:
        judge: shape (n,), the judge's grades of answers, not differences, in the measure's units.
        human: shape (n,), people's grades of the same answers.
        groups: n names.
        clusters: shape (n,), any whole numbers.
        inclusion: shape (n,), the chance of each answer to be labelled; None for equal ones.

    Returns:
        by group, in the order of their first answers.

    Raises:
        InvalidInput: shapes differ, a grade is missing, or there is no labelled answer.
    """
    if not judge.shape == human.shape == clusters.shape == (len(groups),) or not len(groups):
        raise InvalidInput(
            "judge, human, groups and clusters must have one and the same length, 1 at least; got"
            f" {judge.shape}, {human.shape}, {len(groups)} and {clusters.shape}"
        )
    errors = judge - human
    if not np.isfinite(errors).all():
        raise InvalidInput(
            f"{int((~np.isfinite(errors)).sum())} answers lack a grade: give only answers that"
            " both the judge and people graded"
        )
    names = np.array(groups)
    return {
        name: hajek(
            errors[names == name],
            clusters[names == name],
            None if inclusion is None else inclusion[names == name],
        )
        for name in dict.fromkeys(groups)
    }


def thirds_by_length(words: Sequence[int]) -> tuple[str, ...]:
    """`short`, `middle` or `long` for each answer: thirds by its number of words.

    The bounds are the quantiles 1/3 and 2/3 of all answers given, so that arms are cut alike; an
    answer on a bound belongs to the shorter third.
    """
    if not len(words):
        return ()
    lower, upper = np.quantile(np.asarray(words, dtype=np.float64), [1 / 3, 2 / 3])
    return tuple(
        "short" if each <= lower else "middle" if each <= upper else "long" for each in words
    )


def tipping_point(interval: Interval | None, margin: float) -> float | None:
    """The smallest differential bias of the judge that would overturn its verdict.

    Let b be how much better the judge likes the cell than people do, compared with what it is
    compared with: E(J - H) of the one minus that of the other. People's interval is then the
    judge's, moved by -b. The verdict is the same for all b from 0 up to, and not including, the
    tipping point, where the interval's end touches the bound that the verdict must keep clear of.

        better      low          (b above 0: the judge favours the cell)
        worse       high         (b below 0: the judge favours the other)
        equivalent  low + δ or high - δ, whichever is nearer to 0

    *Equivalent* also needs 0 in the interval; where a shift takes 0 out of it first, the verdict
    turns into *better* or *worse, within the margin*, which overturns nothing that matters.

    A tipping-point analysis asks no one to know the bias: it says how large one would have to be
    (Yan, Lee and Li 2009, Journal of Biopharmaceutical Statistics 19:1085).

    Args:
        interval: of the difference by the judge.
        margin: δ in the measure's units, 0 or more.

    Returns:
        a bias in the measure's units, signed; None for a verdict that is no conclusion.
    """
    if interval is None:
        return None
    match read(interval, margin).verdict:
        case Verdict.BETTER:
            return interval.low
        case Verdict.WORSE:
            return interval.high
        case Verdict.EQUIVALENT:
            return min(interval.low + margin, interval.high - margin, key=abs)
        case _:
            return None
