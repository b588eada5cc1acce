"""S4 and S5: verdicts anchored in people."""

from __future__ import annotations

import sys

import evouna
import numpy as np
from drawing import POINTS, Tally, alike, clusters_of, holds

from tuneproof.analysis.anchoring import anchor, anchored_interval
from tuneproof.analysis.intervals import estimate, interval_of

Results = dict[str, float]

SIGNS = (-1.0, 1.0)
"""Differences of two verdicts of right or wrong."""


def s4(random: np.random.Generator, studies: int) -> Results:
    """Ten pairs of real systems: 400 items drawn, 50 or 100 labelled, lexical match the judge."""
    file = evouna.path()
    if file is None:
        print("S4 is left out: no EVOUNA data (benchmarks/verdicts/evouna.py)", file=sys.stderr)
        return {}
    shares, narrower, judged = [], [], []
    items, clusters = 400, np.arange(400)
    for people, lexical in evouna.differences(file).values():
        truth = float(people.mean())
        for labels in (50, 100):
            anchored, alone, widths, by_labels = Tally(), Tally(), 0.0, 0.0
            for _ in range(studies):
                drawn = random.integers(0, len(people), items)
                human = np.full(items, np.nan)
                human[:labels] = people[drawn[:labels]]
                found = anchor(lexical[drawn], human, clusters)
                interval = anchored_interval(found, 0.95, SIGNS)
                labelled = interval_of(estimate(human[:labels], clusters[:labels]), 0.95, SIGNS)
                judge = interval_of(estimate(lexical[drawn], clusters), 0.95, SIGNS)
                if interval is None or labelled is None or judge is None:
                    raise AssertionError("400 single items with 50 labels give intervals")
                anchored.add(holds(interval, truth))
                alone.add(holds(judge, truth))
                widths += interval.high - interval.low
                by_labels += labelled.high - labelled.low
            shares.append(anchored.share)
            narrower.append(widths / by_labels)
            judged.append(alone.share)
    return {
        "s4_min": min(shares),
        "s4_mean": float(np.mean(shares)),
        "s4_width_max": max(narrower),
        "s4_before": min(judged),
    }


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
