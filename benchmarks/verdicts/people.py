"""S4 and S5: verdicts anchored in people."""

from __future__ import annotations

import sys

import evouna
import numpy as np
from drawing import POINTS, Tally, alike, clusters_of, holds

from tuneproof.analysis.anchoring import anchor, anchored_interval
from tuneproof.analysis.intervals import Interval, estimate, interval_of

Results = dict[str, float]

SIGNS = (-1.0, 1.0)
"""Differences of two verdicts of right or wrong."""


def s4(random: np.random.Generator, studies: int, part: int) -> Results:
    """Ten pairs of real systems: 400 items drawn, 50 or 100 labelled, lexical match the judge.

    Args:
        part: 0 or 1: each has half of the pairs; `of_pairs` sums up both.
    """
    file = evouna.path()
    if file is None:
        print("S4 is left out: no EVOUNA data (benchmarks/verdicts/evouna.py)", file=sys.stderr)
        return {}
    told: Results = {}
    clusters = np.arange(400)
    for pair, (people, lexical) in list(evouna.differences(file).items())[part::2]:
        truth = float(people.mean())
        tallies = {labels: Tally() for labels in (50, 100)}
        widths, widths_alone, judge = (
            dict.fromkeys(tallies, 0.0),
            dict.fromkeys(tallies, 0.0),
            Tally(),
        )
        for _ in range(studies):
            drawn = random.integers(0, len(people), 400)
            judge.add(
                holds(_given(interval_of(estimate(lexical[drawn], clusters), 0.95, SIGNS)), truth)
            )
            for labels, anchored in tallies.items():
                human = np.full(400, np.nan)
                human[:labels] = people[drawn[:labels]]
                found = anchor(lexical[drawn], human, clusters)
                interval = _given(anchored_interval(found, 0.95, SIGNS))
                alone = estimate(human[:labels], clusters[:labels])
                labelled = _given(interval_of(alone, 0.95, SIGNS))
                anchored.add(holds(interval, truth))
                widths[labels] += interval.high - interval.low
                widths_alone[labels] += labelled.high - labelled.low
        name = f"s4/{' and '.join(pair)}"
        for labels, tally in tallies.items():
            told[f"{name}/{labels} labels"] = tally.share
            told[f"{name}/{labels} labels, width by labels alone"] = (
                widths[labels] / widths_alone[labels]
            )
        told[f"{name}/the judge alone"] = judge.share
    return told


def of_pairs(told: Results) -> Results:
    """S4's figures of all pairs."""
    by_kind = {
        kind: [value for key, value in told.items() if key.startswith("s4/") and key.endswith(kind)]
        for kind in (" labels", " labels alone", "/the judge alone")
    }
    shares, narrower, judged = by_kind.values()
    return {
        "s4_min": min(shares),
        "s4_mean": float(np.mean(shares)),
        "s4_width_min": min(narrower),
        "s4_width_max": max(narrower),
        "s4_before": min(judged),
    }


def _given(interval: Interval | None) -> Interval:
    """400 single items, or 50 labels, always give one."""
    if interval is None:
        raise AssertionError("no interval")
    return interval


def s5(random: np.random.Generator, studies: int) -> Results:
    """Documents of several items, a judge that likes the arm by .3 points more than people do."""
    shares, judged = [], []
    for groups, sizes, labels in (
        (60, "equal", 50),
        (100, "one to eight", 60),
        (100, "lognormal", 100),
    ):
        anchored, alone = Tally(), Tally()
        for _ in range(studies):
            clusters = clusters_of(random, sizes, groups)
            people = 0.1 + alike(random, clusters, 0.4)
            judge = people + 0.3 + 0.6 * alike(random, clusters, 0.4)
            count = len(clusters)
            human = np.full(count, np.nan)
            chosen = random.permutation(count)[: min(labels, count)]
            human[chosen] = people[chosen]
            interval = anchored_interval(anchor(judge, human, clusters), 0.95, POINTS)
            by_judge = interval_of(estimate(judge, clusters), 0.95, POINTS)
            if interval is not None and by_judge is not None:
                anchored.add(holds(interval, 0.1))
                alone.add(holds(by_judge, 0.1))
        shares.append(anchored.share)
        judged.append(alone.share)
    return {"s5_min": min(shares), "s5_judge": max(judged)}
