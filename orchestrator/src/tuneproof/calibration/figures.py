"""The figures of one source of scores (the judge, words, another person) beside people's labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tuneproof.analysis.agreement import cohen_kappa, weighted_kappa
from tuneproof.analysis.correlation import jackknife, kendall, spearman
from tuneproof.analysis.intervals import Codes, Floats, codes_of, estimate, interval_of
from tuneproof.analysis.judge_bias import thirds_by_length
from tuneproof.calibration.loading import LabelledAnswer, LabelledPair, LabelledSet

_CONFIDENCE = 0.95
_BINS = 5
_THIRDS = ("short", "middle", "long")


@dataclass(frozen=True, slots=True)
class Scale:
    """What scores mean."""

    low: float
    high: float

    def share(self, values: Floats) -> Floats:
        """From 0 at `low` to 1 at `high`."""
        return (values - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Figure:
    """A statistic with its interval at 95 %, over clusters; without one for few clusters."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """The answers of one system, or of one length."""

    name: str
    answers: int
    kappa: float
    mean: float
    """Of the scores, from 0 to 1."""
    people: float
    """Of the labels, likewise."""
    bias: Figure
    """The first less the second: what the source gives beyond people."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers with scores of one range."""

    answers: int
    score: float
    """Their mean, from 0 to 1."""
    people: float
    """Of their labels, likewise."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One source of scores beside people."""

    source: str
    answers: int
    unscored: int
    clusters: int
    kappa: Figure | None
    """Cohen's κ where people said right or wrong, and a score from the middle of its scale counts
    as right; quadratic weights where they gave scores. None for pairs."""
    spearman: Figure
    kendall: Figure
    pairwise: Figure | None
    """Share of the pairs of one question that people tell apart and the source orders as they do;
    a tie counts half. None without such pairs."""
    pairs: int
    by_system: tuple[Group, ...] = ()
    by_length: tuple[Group, ...] = ()
    """Thirds of the answers by words."""
    reliability: tuple[Bin, ...] = ()


def figures_of(
    labelled: LabelledSet,
    scores: Mapping[str, float | None],
    scale: Scale,
    source: str,
    labels_scale: Scale,
) -> Figures | None:
    """The figures of a source; None where it scored nothing.

    Args:
        scores: by answer; None is unscored.
        labels_scale: of people's labels.
    """
    if labelled.pairs:
        return _of_pairs(labelled, scores, source)
    known = [one for one in labelled.answers if scores.get(one.id) is not None]
    asked = sum(one.id in scores for one in labelled.answers)
    if not known:
        return None
    given = scale.share(np.array([scores[one.id] for one in known], dtype=np.float64))
    people = labels_scale.share(np.array([one.label for one in known], dtype=np.float64))
    clusters = codes_of([one.cluster for one in known])
    levels = 2 if labelled.binary else round(labels_scale.high - labels_scale.low) + 1
    groups = _Groups(given, people, clusters, levels)
    right, orders = _orders(known, given)
    thirds = np.array(thirds_by_length([len(one.answer.split()) for one in known]))
    systems = sorted({one.system for one in known} - {""})
    return Figures(
        source,
        len(known),
        asked - len(known),
        int(clusters.max()) + 1,
        groups.kappa(),
        _ranked(spearman, given, people, clusters),
        _ranked(kendall, given, people, clusters),
        mean_of(right, codes_of(orders)) if orders else None,
        len(orders),
        tuple(
            groups.group(name, np.array([one.system == name for one in known])) for name in systems
        ),
        tuple(groups.group(name, thirds == name) for name in _THIRDS if (thirds == name).any()),
        _reliability(given, people),
    )


def ceiling_of(labelled: LabelledSet, labels_scale: Scale) -> Figures | None:
    """One rater beside another: the most that a judge can be asked for."""
    both = [one for one in labelled.answers if one.raters]
    if not both:
        return None
    first = LabelledSet(
        labelled.name,
        labelled.digest,
        tuple(
            LabelledAnswer(
                one.id, one.question, one.answer, (), one.system, one.cluster, one.raters[0]
            )
            for one in both
        ),
    )
    second = {one.id: one.raters[1] for one in both}
    return figures_of(first, second, labels_scale, "another person", labels_scale)


@dataclass(frozen=True)
class _Groups:
    """Scores and labels from 0 to 1."""

    given: Floats
    people: Floats
    clusters: Codes
    levels: int

    def kappa(self) -> Figure:
        """With its interval."""
        return jackknifed(self._kappa, self.clusters)

    def group(self, name: str, inside: np.ndarray) -> Group:
        """The answers where `inside` holds."""
        places = np.flatnonzero(inside)
        given, people = self.given[places], self.people[places]
        return Group(
            name,
            len(places),
            self._kappa(places),
            float(given.mean()),
            float(people.mean()),
            mean_of(given - people, codes_of(self.clusters[places]), (-1.0, 1.0)),
        )

    def _kappa(self, places: Codes) -> float:
        steps = self.levels - 1
        # Half-way counts as the higher one, on both sides; banker's rounding would not.
        given, people = (
            np.floor(each[places] * steps + 0.5).astype(int).tolist()
            for each in (self.given, self.people)
        )
        agree = cohen_kappa if self.levels == 2 else weighted_kappa
        return agree(people, given, range(self.levels))


def _of_pairs(
    labelled: LabelledSet, scores: Mapping[str, float | None], source: str
) -> Figures | None:
    asked = [one for one in labelled.pairs if one.first in scores and one.second in scores]
    both = [(scores[one.first], scores[one.second]) for one in asked]
    apart = [None if first is None or second is None else second - first for first, second in both]
    return preferences_of(asked, apart, source)


def preferences_of(
    pairs: Sequence[LabelledPair], preferences: Sequence[float | None], source: str
) -> Figures | None:
    """The figures of preferences between the answers of pairs; None where there is none.

    Args:
        preferences: of each pair; None is unscored.
    """
    scored = zip(pairs, preferences, strict=True)
    known = [(one, preference) for one, preference in scored if preference is not None]
    if not known:
        return None
    people = np.array([one.label for one, _ in known], dtype=np.float64)
    given = np.array([preference for _, preference in known], dtype=np.float64)
    codes = codes_of([one.cluster for one, _ in known])
    told = np.flatnonzero(people)
    right = (1.0 + np.sign(given[told]) * np.sign(people[told])) / 2.0
    return Figures(
        source,
        len(people),
        len(pairs) - len(known),
        int(codes.max()) + 1,
        None,
        _ranked(spearman, given, people, codes),
        _ranked(kendall, given, people, codes),
        mean_of(right, codes_of(codes[told])) if len(told) else None,
        len(told),
    )


def _orders(known: Sequence[LabelledAnswer], given: Floats) -> tuple[Floats, list[str]]:
    """Over the pairs of one cluster with different labels: whether the scores order them alike."""
    by_cluster: dict[str, list[int]] = {}
    for place, one in enumerate(known):
        by_cluster.setdefault(one.cluster, []).append(place)
    right, clusters = [], []
    for cluster, places in by_cluster.items():
        for left, other in combinations(places, 2):
            labels = known[left].label, known[other].label
            if labels[0] == labels[1] or labels[0] is None or labels[1] is None:
                continue
            sign = np.sign(labels[0] - labels[1]) * np.sign(given[left] - given[other])
            right.append((1.0 + float(sign)) / 2.0)
            clusters.append(cluster)
    return np.array(right), clusters


def _ranked(
    correlation: Callable[[Floats, Floats], float], given: Floats, people: Floats, clusters: Codes
) -> Figure:
    return jackknifed(lambda places: correlation(given[places], people[places]), clusters)


def jackknifed(statistic: Callable[[Codes], float], clusters: Codes) -> Figure:
    """A statistic of the items at some places, over all of them."""
    found = jackknife(statistic, clusters, _CONFIDENCE)
    value = statistic(np.arange(len(clusters)))
    return Figure(value, *((found.low, found.high) if found else ()))


def mean_of(values: Floats, clusters: Codes, limits: tuple[float, float] = (0.0, 1.0)) -> Figure:
    """A mean with its interval by CR2, which lies within limits."""
    found = estimate(values, clusters)
    interval = interval_of(found, _CONFIDENCE, limits)
    return Figure(found.difference, *((interval.low, interval.high) if interval else ()))


def _reliability(given: Floats, people: Floats) -> tuple[Bin, ...]:
    """Bins of equal width over the scores."""
    place = np.minimum((given * _BINS).astype(int), _BINS - 1)
    return tuple(
        Bin(
            int((place == n).sum()),
            float(given[place == n].mean()),
            float(people[place == n].mean()),
        )
        for n in range(_BINS)
        if (place == n).any()
    )
