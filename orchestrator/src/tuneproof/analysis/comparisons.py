"""The comparisons of a study: those named before the run, and the exploratory rest.

The estimand is *the adapter*: training seeds fixed, items drawn in document clusters. What a
recipe does over seeds is another question, which these intervals do not answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tuneproof.analysis.intervals import (
    Estimate,
    Interval,
    estimate,
    interval_of,
)
from tuneproof.analysis.outcome import Outcome, Reading, read, words_of
from tuneproof.analysis.scores import (
    ANSWER_WORDS,
    Measures,
    answers_by_arm,
    measures_of,
    score_of,
)
from tuneproof.results import Answer, PrimaryComparison, StudyResults
from tuneproof.servicekit.errors import InvalidInput

ADJUSTMENT = "Bonferroni"
"""How the intervals of the primary comparisons are made simultaneous: each at the confidence
1 - (1 - C)/m for m comparisons, so that all hold at once with confidence C at least, whatever
their dependence (Dunn 1961, Journal of the American Statistical Association 56:52)."""

Scores = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One arm against another by one measure, paired by item."""

    arm: str
    against: str
    measure: str
    items: int
    """Pairs with a score on both sides; means and difference are over these."""
    clusters: int
    mean: float | None
    mean_against: float | None
    difference: float | None
    """mean - mean_against, in the measure's units; None without pairs."""
    standard_error: float | None
    interval: Interval | None
    margin: float | None
    """δ; None where none was named (exploratory)."""
    outcome: Outcome | None
    """None for an exploratory comparison: it has no verdict."""
    within_margin: bool
    words: str
    """The outcome for people; `exploratory` where there is none."""
    non_inferior: bool | None
    """The gate's question: lower bound above -δ, with the unscored at their worst too. None
    without interval or margin."""
    unscored: int
    """Items of the study without a score in `arm`."""
    unscored_against: int
    bounds: tuple[float, float] | None
    """Lowest and highest mean difference over all items that the unscored allow; equal to the
    difference when all are scored, None where the measure has no upper end."""
    needed_items: int | None
    """About how many items would decide; only where undecided."""


@dataclass(frozen=True, slots=True)
class Comparisons:
    """All comparisons of a study."""

    primary: tuple[Comparison, ...]
    """In the order of the study file, with verdicts."""
    exploratory: tuple[Comparison, ...]
    """Every tuned arm against the baseline by every other measure; each interval stands alone at
    `confidence`, and no verdict is drawn."""
    confidence: float
    """Of the primary intervals together."""
    adjusted_confidence: float
    """Of each primary interval by itself."""
    adjustment: str

    def of_arm(self, arm: str) -> tuple[Comparison, ...]:
        """The primary comparisons of one arm."""
        return tuple(found for found in self.primary if found.arm == arm)


def compare(results: StudyResults) -> Comparisons:
    """Compare the arms of a study as its file named it, and explore the rest.

    Raises:
        InvalidInput: a comparison names an arm or measure that is not there, a measure has no
            margin, or the confidence is not between 0 and 1.
    """
    if not 0.0 < results.confidence < 1.0:
        raise InvalidInput(
            f"confidence must be between 0 and 1, got {results.confidence}", field="confidence"
        )
    measures = measures_of(results)
    answers = answers_by_arm(results)
    adjusted = 1.0 - (1.0 - results.confidence) / max(len(results.primary), 1)
    primary = tuple(
        _verdict(results, answers, measures, named, adjusted) for named in results.primary
    )
    return Comparisons(
        primary=primary,
        exploratory=tuple(_explore(results, answers, measures)),
        confidence=results.confidence,
        adjusted_confidence=adjusted,
        adjustment=ADJUSTMENT,
    )


def _verdict(
    results: StudyResults,
    answers: Mapping[str, Mapping[str, Answer]],
    measures: Measures,
    named: PrimaryComparison,
    confidence: float,
) -> Comparison:
    for arm in (named.arm, named.against):
        if arm not in answers:
            raise InvalidInput(
                f"a primary comparison names the arm `{arm}`, but the study has: "
                f"{', '.join(answers)}",
                field="primary.arm",
            )
    margin = results.margin.get(named.measure)
    if margin is None or not margin >= 0.0:
        raise InvalidInput(
            f"the primary measure `{named.measure}` has no margin of 0 or more: name one in the "
            "study file under comparison.margin",
            field=f"comparison.margin.{named.measure}",
        )
    ends = measures.range_of(named.measure)
    mine = _scores(results, answers[named.arm], named.measure)
    theirs = _scores(results, answers[named.against], named.measure)
    found = _estimate(results, mine, theirs)
    limits = _limits(ends)
    interval = interval_of(found, confidence, limits)
    reading = read(interval, margin)
    worst, best = interval, interval
    bounds = (found.difference, found.difference) if found.items else None
    if ends is not None and found.items < len(results.items):
        lowest = _estimate(results, _filled(mine, ends[0]), _filled(theirs, ends[1]))
        highest = _estimate(results, _filled(mine, ends[1]), _filled(theirs, ends[0]))
        bounds = (lowest.difference, highest.difference)
        worst, best = (interval_of(end, confidence, limits) for end in (lowest, highest))
        if {read(worst, margin), read(best, margin)} != {reading}:
            reading = Reading(Outcome.UNSCORED, within_margin=False)
    needed = None
    if reading.outcome is Outcome.UNDECIDED:
        needed = needed_items(found, confidence, margin, limits)
    safe = None
    if interval is not None and worst is not None:
        safe = min(interval.low, worst.low) > -margin
    return _comparison(
        named,
        mine,
        theirs,
        found,
        interval=interval,
        margin=margin,
        outcome=reading.outcome,
        within_margin=reading.within_margin,
        words=words_of(reading, needed_items=needed, clusters=found.clusters),
        non_inferior=safe,
        bounds=bounds,
        needed=needed,
    )


def _explore(
    results: StudyResults, answers: Mapping[str, Mapping[str, Answer]], measures: Measures
) -> list[Comparison]:
    named = {(one.arm, one.measure) for one in results.primary}
    against = results.arms[0].name if results.arms else ""
    found = []
    for arm in results.arms[1:]:
        for measure in (*measures.judged, *measures.lexical, ANSWER_WORDS):
            if (arm.name, measure) in named:
                continue
            mine = _scores(results, answers[arm.name], measure)
            theirs = _scores(results, answers[against], measure)
            seen = _estimate(results, mine, theirs)
            limits = _limits(measures.range_of(measure))
            found.append(
                _comparison(
                    PrimaryComparison(arm.name, against, measure),
                    mine,
                    theirs,
                    seen,
                    interval=interval_of(seen, results.confidence, limits),
                    margin=None,
                    outcome=None,
                    within_margin=False,
                    words="exploratory",
                    non_inferior=None,
                    bounds=None,
                    needed=None,
                )
            )
    return found


def _comparison(
    named: PrimaryComparison,
    mine: Scores,
    theirs: Scores,
    found: Estimate,
    *,
    interval: Interval | None,
    margin: float | None,
    outcome: Outcome | None,
    within_margin: bool,
    words: str,
    non_inferior: bool | None,
    bounds: tuple[float, float] | None,
    needed: int | None,
) -> Comparison:
    pairs = [
        (score, other)
        for item, score in mine.items()
        if score is not None and (other := theirs[item]) is not None
    ]
    return Comparison(
        arm=named.arm,
        against=named.against,
        measure=named.measure,
        items=found.items,
        clusters=found.clusters,
        mean=math.fsum(pair[0] for pair in pairs) / len(pairs) if pairs else None,
        mean_against=math.fsum(pair[1] for pair in pairs) / len(pairs) if pairs else None,
        difference=found.difference if found.items else None,
        standard_error=found.standard_error,
        interval=interval,
        margin=margin,
        outcome=outcome,
        within_margin=within_margin,
        words=words,
        non_inferior=non_inferior,
        unscored=sum(score is None for score in mine.values()),
        unscored_against=sum(score is None for score in theirs.values()),
        bounds=bounds,
        needed_items=needed,
    )


def _scores(results: StudyResults, answers: Mapping[str, Answer], measure: str) -> Scores:
    return {item.id: score_of(answers.get(item.id), measure) for item in results.items}


def _filled(scores: Scores, value: float) -> Scores:
    return {item: value if score is None else score for item, score in scores.items()}


def _limits(ends: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if ends is None else (ends[0] - ends[1], ends[1] - ends[0])


def _estimate(results: StudyResults, mine: Scores, theirs: Scores) -> Estimate:
    numbers: dict[str, int] = {}
    differences, clusters = [], []
    for item in results.items:
        score, other = mine[item.id], theirs[item.id]
        if score is not None and other is not None:
            differences.append(score - other)
            clusters.append(numbers.setdefault(item.cluster, len(numbers)))
    return estimate(np.array(differences, dtype=np.float64), np.array(clusters, dtype=np.int64))
