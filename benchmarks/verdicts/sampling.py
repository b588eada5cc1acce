"""S1 to S3 and S6: intervals, gate and looks, where the judge is taken at its word."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from drawing import POINTS, SIZES, Tally, alike, clusters_of, holds
from scipy import special

from tuneproof.analysis.guarantees import guaranteed_lower
from tuneproof.analysis.intervals import Floats, estimate, interval_of
from tuneproof.analysis.looks import in_looks, plan_looks
from tuneproof.analysis.verdict import Verdict, read

Results = dict[str, float]

TIES = 0.7
MEAN = 0.1
WORDS = (Verdict.BETTER, Verdict.WORSE)
DECIDED = (*WORDS, Verdict.EQUIVALENT)


def s1(random: np.random.Generator, studies: int) -> Results:
    """Coverage, and width by that of a t interval with the true standard error."""
    covered, widths, told = [], [], {}
    for groups in (10, 20, 60, 200):
        for sizes in SIZES:
            for correlation in (0.0, 0.4):
                share, width = _coverage(random, studies, groups, sizes, correlation)
                setting = f"s1/{groups} clusters/{sizes}/correlation {correlation:g}"
                told |= {f"{setting}/coverage": share, f"{setting}/width": width}
                # An interval that is hardly ever given says nothing of coverage.
                if not math.isnan(share):
                    covered.append(share)
                    widths.append(width)
    return {
        "s1_min": min(covered),
        "s1_width_max": max(widths),
        "s1_settings": len(covered),
        **told,
    }


def _coverage(
    random: np.random.Generator, studies: int, groups: int, sizes: str, correlation: float
) -> tuple[float, float]:
    tally, means, widths, reaches = Tally(), [], [], []
    for _ in range(studies):
        clusters = clusters_of(random, sizes, groups)
        differences = MEAN / (1.0 - TIES) + alike(random, clusters, correlation)
        differences[random.random(len(clusters)) < TIES] = 0.0
        found = estimate(differences.clip(*POINTS), clusters)
        interval = interval_of(found, 0.95, POINTS)
        if interval is not None:
            tally.add(holds(interval, MEAN))
            means.append(found.difference)
            widths.append(interval.high - interval.low)
            reaches.append(special.stdtrit(found.degrees_of_freedom, 0.975))
    if tally.rounds < studies / 2:
        return math.nan, math.nan
    usual = 2.0 * float(np.mean(reaches)) * float(np.std(means))
    return tally.share, float(np.mean(widths)) / usual


def s2(random: np.random.Generator, studies: int) -> Results:
    """Coverage where 2 % of answers lose 4 points."""
    shares = {}
    for groups in (20, 60, 200):
        for sizes in ("equal", "one to eight"):
            tally = Tally()
            for _ in range(studies):
                clusters = clusters_of(random, sizes, groups)
                differences = 0.3 * alike(random, clusters, 0.4)
                differences[random.random(len(clusters)) < 0.02] = -4.0
                interval = interval_of(estimate(differences, clusters), 0.95, POINTS)
                tally.add(interval is not None and holds(interval, -0.08))
            shares[groups, sizes] = tally.share
    return {
        "s2_min": min(share for (groups, _), share in shares.items() if groups >= 60),
        "s2_few_min": min(share for (groups, _), share in shares.items() if groups < 60),
        **{
            f"s2/{groups} clusters/{sizes}/coverage": share
            for (groups, sizes), share in shares.items()
        },
    }


def s3(random: np.random.Generator, studies: int) -> Results:
    """How often a gate passes an arm at -δ by rare losses, and one that is as good."""
    gate, before = [], []
    for lost, groups in ((0.05, 60), (0.05, 200), (0.02, 40), (0.02, 100)):
        new, old = Tally(), Tally()
        margin, clusters = 4.0 * lost, np.arange(groups)
        for _ in range(studies):
            differences = random.uniform(-0.5, 0.5, groups)
            differences[random.random(groups) < lost] = -4.0
            passes = _above(differences, margin)
            old.add(passes)
            new.add(passes and guaranteed_lower(differences, clusters, POINTS) > -margin)
        gate.append(new.share)
        before.append(old.share)
    good = Tally()
    for _ in range(studies):
        differences = random.normal(size=200).clip(*POINTS)
        passes = _above(differences, 0.25)
        good.add(passes and guaranteed_lower(differences, np.arange(200), POINTS) > -0.25)
    return {"s3_max": max(gate), "s3_pass": good.share, "s3_before": max(before)}


def _above(differences: Floats, margin: float) -> bool:
    """The gate of before: the interval's lower end is above -δ."""
    interval = interval_of(estimate(differences, np.arange(len(differences))), 0.95, POINTS)
    return interval is not None and interval.low > -margin


def s6(random: np.random.Generator, studies: int) -> Results:
    """Four looks at 400 items with a margin of .25, SD 1; before, the 95 % interval at each."""
    _, fractions = in_looks(np.arange(400), 4, 1)
    planned = [look.confidence for look in plan_looks(fractions)]
    usual = [0.95] * len(planned)
    false, before, same, items = Tally(), Tally(), Tally(), []
    for _ in range(studies):
        nothing = random.normal(size=400).clip(*POINTS)
        verdict, used = stopped(nothing, planned)
        false.add(verdict in WORDS)
        items.append(used / 400)
        before.add(stopped(nothing, usual)[0] in WORDS)
        # At a true difference of δ, equivalent is the false word.
        same.add(stopped(nothing + 0.25, planned)[0] is Verdict.EQUIVALENT)
    return {
        "s6_max": false.share,
        "s6_equivalent": same.share,
        "s6_items": float(np.mean(items)),
        "s6_before": before.share,
    }


def stopped(differences: Floats, confidences: Sequence[float]) -> tuple[Verdict, int]:
    """The verdict at which a study of single items stops, and how many items it used."""
    for look, confidence in enumerate(confidences, 1):
        seen = differences[: len(differences) * look // len(confidences)]
        found = estimate(seen, np.arange(len(seen)))
        verdict = read(interval_of(found, confidence, POINTS), 0.25).verdict
        if verdict in DECIDED:
            break
    return verdict, len(seen)
