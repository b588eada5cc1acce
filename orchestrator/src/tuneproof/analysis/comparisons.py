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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tuneproof.analysis.families import (
    Adjustment,
    Tails,
    at_this_look,
    family_tails,
    joined,
    read_tested,
)
from tuneproof.analysis.intervals import (
    Codes,
    Estimate,
    Floats,
    Interval,
    Limits,
    codes_of,
    estimate,
    interval_of,
    why_no_interval,
)
from tuneproof.analysis.scores import Measures, answers_by_cell, measures_of, score_of
from tuneproof.analysis.verdict import Reading, Verdict, read, words_of
from tuneproof.results import Answer, Measure, PrimaryComparison, StudyResults
from tuneproof.servicekit.errors import InvalidInput

WORD_OVERLAP = "word overlap"


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
    """Of the primary words together; with Bonferroni of the intervals, too."""
    adjusted_confidence: float
    """What each of as many intervals needs by itself so that all hold together."""
    adjustment: Adjustment
    look: str = ""
    """Which of the planned looks this is, as `look 2 of 4`; empty without looks."""

    @property
    def decided(self) -> bool:
        """Every primary comparison has its conclusion: a study with interim looks may stop."""
        open_ = {Verdict.UNDECIDED, Verdict.UNSCORED, Verdict.TOO_FEW_CLUSTERS}
        tested = [one for one in self.primary if one.verdict is not Verdict.NOT_TESTED]
        return bool(tested) and not any(one.verdict in open_ for one in tested)

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
    study = _Study.of(results)
    adjustment, look = Adjustment(results.adjustment), ""
    if results.looks is not None:
        look = f"look {results.looks.taken} of {len(results.looks.fractions)}"
    pairs = [study.named(one) for one in results.primary]
    tails = family_tails(results, [one.interval for one in pairs])
    return Comparisons(
        primary=tuple(map(study.primary, results.primary, pairs, tails)),
        exploratory=tuple(study.exploratory()),
        confidence=results.confidence,
        adjusted_confidence=at_this_look(
            results, 1.0 - (1.0 - results.confidence) / max(len(pairs), 1)
        ),
        adjustment=adjustment,
        look=look,
    )


def compare_pair(results: StudyResults, named: PrimaryComparison, confidence: float) -> Comparison:
    """One comparison at a confidence of its own, with the verdict that its margin gives.

    Raises:
        InvalidInput: it names a cell or measure that is not there, or a measure without margin.
    """
    study = _Study.of(replace(results, looks=None))
    tail = (1.0 - confidence) / 2.0
    return study.primary(named, study.named(named), Tails(tail, tail))


@dataclass(frozen=True, slots=True)
class Pair:
    """The scores of two cells by one measure, before a confidence is chosen."""

    measure: Measure
    mine: Floats
    """Shape (n,): scores of the cell, NaN where there is none."""
    theirs: Floats
    """Shape (n,): of what it is compared with."""
    found: Estimate
    """Over the scored pairs."""
    worst: Estimate | None = None
    """Over all items, the unscored at their worst; None where all are scored, and where the measure
    is unbounded, as is `best`."""
    best: Estimate | None = None

    @classmethod
    def of(cls, mine: Floats, theirs: Floats, clusters: Codes, measure: Measure) -> Pair:
        """Reads the scores of all items: shapes (n,)."""
        scored = np.isfinite(mine) & np.isfinite(theirs)
        found = estimate((mine - theirs)[scored], clusters[scored])
        if measure.high is None or scored.all():
            return cls(measure, mine, theirs, found)
        worst, best = (
            estimate(_filled(mine, own) - _filled(theirs, other), clusters)
            for own, other in ((measure.low, measure.high), (measure.high, measure.low))
        )
        return cls(measure, mine, theirs, found, worst, best)

    def scored(self, confidence: float) -> Interval | None:
        """Over the scored pairs alone."""
        return interval_of(self.found, confidence, self.measure.limits)

    def interval(self, confidence: float) -> Interval | None:
        """The hull over what the unscored could be."""
        scored = self.scored(confidence)
        if self.worst is None or self.best is None:
            return scored
        return _hull(scored, self.worst, self.best, confidence, self.measure.limits)

    @property
    def clusters(self) -> str:
        """Why the clusters give no interval; empty where they do."""
        return why_no_interval(self.worst or self.found)


@dataclass(frozen=True, slots=True)
class _Study:
    """What every comparison reads."""

    results: StudyResults
    measures: Measures
    answers: Mapping[str, Mapping[str, Answer]]
    clusters: Codes
    """Shape (n,): of the study's items."""
    scores: dict[tuple[str, str], Floats]
    """Those that were read, by cell and measure: shape (n,), NaN where there is none."""

    @classmethod
    def of(cls, results: StudyResults) -> _Study:
        """Reads a study."""
        clusters = codes_of([item.cluster for item in results.items])
        return cls(results, measures_of(results), answers_by_cell(results), clusters, {})

    def named(self, named: PrimaryComparison) -> Pair:
        """A comparison that the study file names.

        Raises:
            InvalidInput: it names a cell or measure that is not there, or one without a margin.
        """
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
        return self._pair(named)

    def primary(self, named: PrimaryComparison, pair: Pair, tails: Tails) -> Comparison:
        """It, with its verdict."""
        margin = self.results.margin[named.measure]
        interval = joined(self.results, pair.interval, tails)
        scored = joined(self.results, pair.scored, tails)
        reading = read_tested(interval, margin, tails)
        if reading.verdict is Verdict.UNDECIDED and scored != interval:
            alone = read(scored, margin).verdict
            if alone is not Verdict.UNDECIDED:
                reading = Reading(Verdict.UNSCORED, within_margin=False)
        safe = None if interval is None or tails.low is None else interval.low > -margin
        return replace(
            self._told(named, pair, interval, scored),
            margin=margin,
            verdict=reading.verdict,
            within_margin=reading.within_margin,
            words=words_of(reading, clusters=pair.clusters),
            non_inferior=safe,
        )

    def exploratory(self) -> Iterator[Comparison]:
        """Every other pair of a cell and a measure."""
        named = {(one.cell, one.measure) for one in self.results.primary}
        confidence = self.results.confidence
        for cell in self.results.compared:
            for measure in self.measures.names:
                if (cell.name, measure) not in named:
                    against = self.results.baseline_of(cell)
                    one = PrimaryComparison(cell.name, against, measure)
                    pair = self._pair(one)
                    intervals = pair.interval(confidence), pair.scored(confidence)
                    found = self._told(one, pair, *intervals)
                    yield replace(found, words="exploratory")

    def _pair(self, named: PrimaryComparison) -> Pair:
        measure = self.measures.of(named.measure)
        mine, theirs = self._scores(named.cell, measure), self._scores(named.against, measure)
        return Pair.of(mine, theirs, self.clusters, measure)

    def _told(
        self,
        named: PrimaryComparison,
        pair: Pair,
        interval: Interval | None,
        scored: Interval | None,
    ) -> Comparison:
        """A comparison without margin and verdict."""
        found, measure = pair.found, pair.measure
        both = np.isfinite(pair.mine) & np.isfinite(pair.theirs)
        bounds = (found.difference, found.difference) if found.items else None
        if pair.worst is not None and pair.best is not None:
            bounds = (pair.worst.difference, pair.best.difference)
        judged = measure.name in self.measures.judged
        return Comparison(
            cell=named.cell,
            against=named.against,
            measure=named.measure,
            scale=measure,
            by=f"judge {self.results.judge_model}" if judged else WORD_OVERLAP,
            items=found.items,
            clusters=found.clusters,
            mean=float(pair.mine[both].mean()) if both.any() else None,
            mean_against=float(pair.theirs[both].mean()) if both.any() else None,
            difference=found.difference if found.items else None,
            standard_error=found.standard_error,
            degrees_of_freedom=found.degrees_of_freedom,
            interval=interval,
            scored_interval=scored,
            words=pair.clusters,
            unscored=int((~np.isfinite(pair.mine)).sum()),
            unscored_against=int((~np.isfinite(pair.theirs)).sum()),
            bounds=bounds,
        )

    def _scores(self, cell: str, measure: Measure) -> Floats:
        known = self.scores.get((cell, measure.name))
        if known is None:
            answers = self.answers.get(cell, {})
            found = [score_of(answers.get(one.id), measure.name) for one in self.results.items]
            known = np.array(found, dtype=np.float64)  # None becomes NaN
            self.scores[cell, measure.name] = known
        return known


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


def _filled(scores: Floats, value: float) -> Floats:
    return np.where(np.isfinite(scores), scores, value)
