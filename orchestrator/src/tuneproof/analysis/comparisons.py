"""The comparisons of a study: those named before the run, and the exploratory rest.

The estimand is *the adapter*: training seeds fixed, items drawn in document clusters. These
intervals do not answer what a recipe does over seeds.

Answers without a score are neither dropped nor counted as zero. Each comparison has three
intervals: over the pairs that are scored, and over all items with the unscored at their worst and
at their best for the cell. It shows the *hull* of the three, and its verdict is read off that.
With a share u of the answers unscored the hull of n items tends to the difference ± u times the
range: more items make it narrower, so a few unscored answers never undo what many items show.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tuneproof.analysis.intervals import (
    Estimate,
    Interval,
    Limits,
    estimate,
    interval_of,
    why_no_interval,
)
from tuneproof.analysis.looks import plan_looks
from tuneproof.analysis.scores import Measures, answers_by_cell, measures_of, score_of
from tuneproof.analysis.verdict import Reading, Verdict, read, words_of
from tuneproof.results import Answer, Measure, PrimaryComparison, StudyResults
from tuneproof.servicekit.errors import InvalidInput

ADJUSTMENT = "Bonferroni"
"""How the intervals of the primary comparisons are made simultaneous: each at the confidence
1 - (1 - C)/m for m comparisons, so that all hold at once with confidence C at least, whatever
their dependence (Dunn 1961, Journal of the American Statistical Association 56:52)."""

WORD_OVERLAP = "word overlap"

Scores = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One cell against another by one measure, paired by item."""

    cell: str
    against: str
    measure: str
    scale: Measure
    """The measure's range, unit and decimals."""
    by: str
    """Who or what scored the answers: `judge <model>`, or `word overlap`."""
    items: int
    """Pairs with a score on both sides; means and difference are over these."""
    clusters: int
    """Of these items."""
    mean: float | None
    mean_against: float | None
    difference: float | None
    """mean - mean_against, in the measure's units; None without pairs."""
    standard_error: float | None
    """Of the difference, by CR2."""
    degrees_of_freedom: float
    interval: Interval | None
    """The hull over what the unscored answers could be; the verdict is read off it."""
    scored_interval: Interval | None
    """Over the scored pairs alone; the same as `interval` where all are scored."""
    words: str
    """The verdict for people; `exploratory` where there is none."""
    unscored: int
    """Items of the study without a score in `cell`."""
    unscored_against: int
    bounds: tuple[float, float] | None
    """Lowest and highest mean difference over all items that the unscored allow; equal to the
    difference when all are scored, None where the measure has no upper end."""
    margin: float | None = None
    """δ; None for an exploratory comparison, as are the verdict and what follows from it."""
    verdict: Verdict | None = None
    within_margin: bool = False
    non_inferior: bool | None = None
    """The gate's question: the interval's lower end is above -δ. None without an interval."""


@dataclass(frozen=True, slots=True)
class Comparisons:
    """All comparisons of a study."""

    primary: tuple[Comparison, ...]
    """In the order of the study file, with verdicts."""
    exploratory: tuple[Comparison, ...]
    """Every cell against its model's baseline by every other measure, each interval by itself at
    `confidence`, without verdicts."""
    confidence: float
    """Of the primary intervals together."""
    adjusted_confidence: float
    """Of each single primary interval."""
    adjustment: str

    @property
    def decided(self) -> bool:
        """Every primary comparison has its conclusion: a study with interim looks may stop."""
        open_ = {Verdict.UNDECIDED, Verdict.UNSCORED, Verdict.TOO_FEW_CLUSTERS}
        return bool(self.primary) and not any(one.verdict in open_ for one in self.primary)

    def of_cell(self, cell: str) -> tuple[Comparison, ...]:
        """The primary comparisons of one cell."""
        return tuple(found for found in self.primary if found.cell == cell)


def compare(results: StudyResults) -> Comparisons:
    """Compares the cells of a study as its file named it, and explores the rest.

    Raises:
        InvalidInput: a comparison names a cell or measure that is not there, a measure has no
            margin, or the confidence is not between 0 and 1.
    """
    if not 0.0 < results.confidence < 1.0:
        raise InvalidInput(
            f"confidence must be between 0 and 1, got {results.confidence}", field="confidence"
        )
    study = _Study(results, measures_of(results), answers_by_cell(results))
    adjusted = 1.0 - (1.0 - results.confidence) / max(len(results.primary), 1)
    adjustment = ADJUSTMENT
    if results.looks is not None:
        adjusted = at_this_look(results, adjusted)
        count = len(results.looks.fractions)
        adjustment += f" and look {results.looks.taken} of {count} (Lan and DeMets)"
    return Comparisons(
        primary=tuple(study.primary(named, adjusted) for named in results.primary),
        exploratory=tuple(study.exploratory()),
        confidence=results.confidence,
        adjusted_confidence=adjusted,
        adjustment=adjustment,
    )


def at_this_look(results: StudyResults, confidence: float) -> float:
    """What one interval needs so that those of all planned looks hold together."""
    if results.looks is None:
        return confidence
    return plan_looks(results.looks.fractions, confidence)[results.looks.taken - 1].confidence


def compare_pair(results: StudyResults, named: PrimaryComparison, confidence: float) -> Comparison:
    """One comparison at a confidence of its own, with the verdict that its margin gives.

    Raises:
        InvalidInput: it names a cell or measure that is not there, or a measure without margin.
    """
    study = _Study(results, measures_of(results), answers_by_cell(results))
    return study.primary(named, confidence)


@dataclass(frozen=True, slots=True)
class _Study:
    """What every comparison reads."""

    results: StudyResults
    measures: Measures
    answers: Mapping[str, Mapping[str, Answer]]

    def primary(self, named: PrimaryComparison, confidence: float) -> Comparison:
        """A comparison that the study file names, with its verdict."""
        for cell in (named.cell, named.against):
            if cell not in self.answers:
                raise InvalidInput(
                    f"a primary comparison names the cell `{cell}`, but the study has: "
                    f"{', '.join(self.answers)}",
                    field="primary.cell",
                )
        margin = self.results.margin.get(named.measure)
        if margin is None or not margin >= 0.0:
            raise InvalidInput(
                f"the primary measure `{named.measure}` needs a margin of 0 or more: name one in"
                " the study file under comparison.margin",
                field=f"comparison.margin.{named.measure}",
            )
        found = self._compare(named, confidence)
        reading = read(found.interval, margin)
        if reading.verdict is Verdict.UNDECIDED and found.scored_interval != found.interval:
            alone = read(found.scored_interval, margin).verdict
            if alone is not Verdict.UNDECIDED:
                reading = Reading(Verdict.UNSCORED, within_margin=False)
        return replace(
            found,
            margin=margin,
            verdict=reading.verdict,
            within_margin=reading.within_margin,
            words=words_of(reading, clusters=found.words),
            non_inferior=None if found.interval is None else found.interval.low > -margin,
        )

    def exploratory(self) -> Iterator[Comparison]:
        """Every other pair of a cell and a measure."""
        named = {(one.cell, one.measure) for one in self.results.primary}
        for cell in self.results.compared:
            for measure in self.measures.names:
                if (cell.name, measure) not in named:
                    against = self.results.baseline_of(cell)
                    pair = PrimaryComparison(cell.name, against, measure)
                    found = self._compare(pair, self.results.confidence)
                    yield replace(found, words="exploratory")

    def _compare(self, named: PrimaryComparison, confidence: float) -> Comparison:
        """A comparison without margin and verdict; its words say why there is no interval."""
        measure = self.measures.of(named.measure)
        mine, theirs = self._scores(named.cell, measure), self._scores(named.against, measure)
        found = self._estimate(mine, theirs)
        scored = interval_of(found, confidence, measure.limits)
        interval, clusters = scored, why_no_interval(found)
        bounds = (found.difference, found.difference) if found.items else None
        if measure.high is not None and found.items < len(self.results.items):
            low, high = measure.low, measure.high
            worst = self._estimate(_filled(mine, low), _filled(theirs, high))
            best = self._estimate(_filled(mine, high), _filled(theirs, low))
            interval = _hull(scored, worst, best, confidence, measure.limits)
            bounds, clusters = (worst.difference, best.difference), why_no_interval(worst)
        pairs = [
            (score, other)
            for item, score in mine.items()
            if score is not None and (other := theirs[item]) is not None
        ]
        judged = measure.name in self.measures.judged
        return Comparison(
            cell=named.cell,
            against=named.against,
            measure=named.measure,
            scale=measure,
            by=f"judge {self.results.judge_model}" if judged else WORD_OVERLAP,
            items=found.items,
            clusters=found.clusters,
            mean=math.fsum(pair[0] for pair in pairs) / len(pairs) if pairs else None,
            mean_against=math.fsum(pair[1] for pair in pairs) / len(pairs) if pairs else None,
            difference=found.difference if found.items else None,
            standard_error=found.standard_error,
            degrees_of_freedom=found.degrees_of_freedom,
            interval=interval,
            scored_interval=scored,
            words=clusters,
            unscored=sum(score is None for score in mine.values()),
            unscored_against=sum(score is None for score in theirs.values()),
            bounds=bounds,
        )

    def _scores(self, cell: str, measure: Measure) -> Scores:
        answers = self.answers.get(cell, {})
        return {one.id: score_of(answers.get(one.id), measure.name) for one in self.results.items}

    def _estimate(self, mine: Scores, theirs: Scores) -> Estimate:
        numbers: dict[str, int] = {}
        differences, clusters = [], []
        for item in self.results.items:
            score, other = mine[item.id], theirs[item.id]
            if score is not None and other is not None:
                differences.append(score - other)
                clusters.append(numbers.setdefault(item.cluster, len(numbers)))
        return estimate(np.array(differences, dtype=np.float64), np.array(clusters, dtype=np.int64))


def _hull(
    scored: Interval | None,
    worst: Estimate,
    best: Estimate,
    confidence: float,
    limits: Limits | None,
) -> Interval | None:
    """The smallest interval that holds the three; None where all items together give none.

    The scored pairs alone may give none, because they leave too few clusters: the other two then
    hold whatever the unscored could have shown.
    """
    lowest, highest = (interval_of(each, confidence, limits) for each in (worst, best))
    if lowest is None or highest is None:
        return None
    parts = [each for each in (scored, lowest, highest) if each is not None]
    return replace(
        parts[0], low=min(each.low for each in parts), high=max(each.high for each in parts)
    )


def _filled(scores: Scores, value: float) -> Scores:
    return {item: value if score is None else score for item, score in scores.items()}
