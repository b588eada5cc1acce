"""Verdicts anchored in people: PPI++ in clusters, weights, identical texts."""

import math
from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import ppi_py
import pytest
from hypothesis import given
from scipy import stats

from tuneproof.analysis.anchoring import Anchored, anchor, anchored_interval
from tuneproof.analysis.intervals import estimate, interval_of
from tuneproof.analysis.weighted import hajek, weighted_freedom
from tuneproof.servicekit.errors import InvalidInput

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

POINTS = (-4.0, 4.0)


@dataclass(frozen=True)
class Study:
    """Judged pairs of which some are labelled."""

    judge: Floats
    human: Floats
    clusters: Codes

    @property
    def labelled(self) -> Flags:
        return np.isfinite(self.human)

    def anchored(self) -> Anchored:
        return anchor(self.judge, self.human, self.clusters)


def drawn(seed: int, *, singletons: bool, quality: float) -> Study:
    """60 pairs with 20 labels; `quality` is the judge's correlation with people, about."""
    random = np.random.default_rng(seed)
    clusters = np.arange(60) if singletons else random.integers(0, 15, 60)
    people = random.normal(0.2, 1.0, 60) + random.normal(0.0, 0.5, 60)[clusters]
    judge = quality * people + math.sqrt(1.0 - quality**2) * random.normal(0.3, 1.0, 60)
    human = np.full(60, np.nan)
    chosen = random.permutation(60)[:20]
    human[chosen] = people[chosen]
    return Study(judge, human, clusters.astype(np.int64))


seeds = st.integers(0, 10_000)
studies = st.builds(
    drawn, seeds, singletons=st.booleans(), quality=st.sampled_from([-0.5, 0.0, 0.4, 0.9, 1.0])
)
singletons = st.builds(
    drawn, seeds, singletons=st.just(True), quality=st.sampled_from([0.0, 0.4, 0.8])
)


@given(singletons)
def test_single_pairs_give_the_estimate_and_the_error_of_ppi_python(study: Study) -> None:
    found = study.anchored()
    known = study.labelled
    if found.judge_weight in (0.0, 1.0):
        return  # they cut another number, λ (1 - n/N)
    human, ours, others = study.human[known], study.judge[known], study.judge[~known]
    value = ppi_py.ppi_mean_pointestimate(human, ours, others)
    assert found.estimate.difference == pytest.approx(value.item(), abs=1e-9)

    count, rest, pairs = len(ours), len(others), len(study.judge)
    theirs = found.judge_weight * rest / pairs
    z = stats.norm.ppf(0.975)

    def error(*args: Floats, lam: float) -> float:
        low, high = ppi_py.ppi_mean_ci(*args, alpha=0.05, lam=lam)
        return float((high - low).item() / 2 / z)

    # Each part of their variance alone: without a spread in the other one.
    labels = error(human, ours, np.zeros(rest), lam=theirs) ** 2
    judged = error(theirs * ours, ours, others, lam=theirs) ** 2
    assert error(human, ours, others, lam=theirs) ** 2 == pytest.approx(labels + judged, abs=1e-12)
    # Ours centres both parts on the mean of all pairs, and corrects for few clusters.
    apart = (found.judge_weight * (others.mean() - ours.mean()) / pairs) ** 2
    labels += apart * count * (rest / pairs) ** 2
    judged += apart * rest * (count / pairs) ** 2
    expected = labels * count / (count - 1) + judged * pairs / (pairs - 1)
    assert found.estimate.standard_error == pytest.approx(math.sqrt(expected), abs=1e-9)


@given(studies)
def test_the_judges_weight_is_from_0_to_1_and_an_inverted_judge_has_none(study: Study) -> None:
    assert 0.0 <= study.anchored().judge_weight <= 1.0
    inverted = anchor(-np.where(study.labelled, study.human, 0.0), study.human, study.clusters)
    assert inverted.judge_weight == 0.0


@given(studies)
def test_labels_for_all_pairs_give_the_interval_of_the_labels(study: Study) -> None:
    people = np.where(study.labelled, study.human, 0.5)
    found = anchor(study.judge, people, study.clusters).estimate
    alone = estimate(people, study.clusters)
    assert found.difference == pytest.approx(alone.difference, abs=1e-9)
    assert found.standard_error == pytest.approx(alone.standard_error, abs=1e-9)
    assert found.degrees_of_freedom == pytest.approx(alone.degrees_of_freedom, abs=1e-6)


@given(studies)
def test_a_judge_that_says_nothing_gives_the_interval_of_the_labels(study: Study) -> None:
    known = study.labelled
    found = anchor(np.full(60, 0.7), study.human, study.clusters)
    alone = estimate(study.human[known], study.clusters[known])
    assert found.judge_weight == 0.0
    # A cluster counts by its share of the pairs where that is larger than that of the labels.
    assert found.estimate.difference == pytest.approx(alone.difference, abs=1e-9)
    assert alone.standard_error is not None
    assert found.estimate.standard_error == pytest.approx(alone.standard_error, rel=0.1)


@given(studies, st.integers(-20, 20), st.integers(1, 9))
def test_shift_scale_sign_and_order(study: Study, shift: int, scale: int) -> None:
    found = study.anchored()
    here = found.estimate

    def same(judge: Floats, human: Floats, clusters: Codes, *, times: float, plus: float) -> None:
        other = anchor(judge, human, clusters)
        assert other.judge_weight == pytest.approx(found.judge_weight, abs=1e-9)
        there = other.estimate
        assert there.difference == pytest.approx(times * here.difference + plus, abs=1e-7)
        assert there.standard_error == pytest.approx(abs(times) * here.standard_error, abs=1e-7)
        assert there.degrees_of_freedom == pytest.approx(here.degrees_of_freedom, abs=1e-7)

    judge, human, clusters = study.judge, study.human, study.clusters
    same(judge + shift, human + shift, clusters, times=1.0, plus=float(shift))
    # A judge that is too lenient by the same in every pair changes nothing.
    same(judge + shift, human, clusters, times=1.0, plus=0.0)
    same(judge * scale, human * scale, clusters, times=float(scale), plus=0.0)
    same(-judge, -human, clusters, times=-1.0, plus=0.0)
    order = np.random.default_rng(7).permutation(60)
    same(judge[order], human[order], 1000 - 3 * clusters[order], times=1.0, plus=0.0)


@given(studies, st.floats(0.05, 1.0))
def test_equal_chances_are_no_weights(study: Study, chance: float) -> None:
    found = study.anchored()
    other = anchor(study.judge, study.human, study.clusters, inclusion=np.full(60, chance))
    assert other.estimate.difference == pytest.approx(found.estimate.difference, abs=1e-9)
    assert other.estimate.standard_error == pytest.approx(found.estimate.standard_error, abs=1e-9)
    assert other.bias.difference == pytest.approx(found.bias.difference, abs=1e-9)


@given(st.lists(st.floats(0.1, 1.0), min_size=4, max_size=40), st.integers(2, 6))
def test_weighted_degrees_of_freedom_are_those_of_the_matrix(
    chances: list[float], groups: int
) -> None:
    weights = 1.0 / np.array(chances)
    clusters = np.arange(len(weights)) % groups
    shares = np.bincount(clusters, weights=weights) / weights.sum()
    # Residual sums of clusters as a linear map of independent items.
    member = (clusters == np.arange(len(shares))[:, None]) * weights
    residual = member - np.outer(shares, weights)
    matrix = (residual / np.sqrt(1.0 - shares)[:, None]) @ (
        residual / np.sqrt(1.0 - shares)[:, None]
    ).T
    expected = np.trace(matrix) ** 2 / (matrix**2).sum()
    assert weighted_freedom(weights, clusters) == pytest.approx(expected, rel=1e-6)


def test_labels_drawn_more_often_from_where_the_arm_loses_are_weighted_back() -> None:
    random = np.random.default_rng(5)
    people = np.concatenate([np.full(200, -1.0), np.full(800, 0.5)]) + random.normal(0, 0.3, 1000)
    judge = random.normal(0.0, 1.0, 1000)
    inclusion = np.concatenate([np.full(200, 0.5), np.full(800, 0.05)])
    human = np.where(random.random(1000) < inclusion, people, np.nan)
    found = anchor(judge, human, np.arange(1000), inclusion=inclusion).estimate
    naive = anchor(judge, human, np.arange(1000)).estimate
    assert found.standard_error is not None
    assert naive.standard_error is not None
    assert abs(found.difference - 0.2) < 3 * found.standard_error
    assert abs(naive.difference - 0.2) > 3 * naive.standard_error


def test_identical_texts_differ_by_nothing_and_need_no_label() -> None:
    study = drawn(3, singletons=True, quality=0.7)
    same = np.concatenate([np.zeros(60, dtype=np.bool_), np.ones(40, dtype=np.bool_)])
    # What the judge and people say of two identical texts is not read.
    judge = np.concatenate([study.judge, np.linspace(-2, 2, 40)])
    human = np.concatenate([study.human, np.full(40, 3.0)])
    found = anchor(judge, human, np.arange(100), identical=same)
    alone = study.anchored()
    assert (found.pairs, found.identical, found.estimate.items) == (100, 40, 20)
    assert found.judge_weight == pytest.approx(alone.judge_weight, abs=1e-12)
    assert found.estimate.difference == pytest.approx(0.6 * alone.estimate.difference, abs=1e-12)
    assert alone.estimate.standard_error is not None
    assert found.estimate.standard_error is not None
    assert found.estimate.standard_error < alone.estimate.standard_error


@given(studies, st.integers(1, 80))
def test_all_other_pairs_labelled_is_the_mean_with_zeros_for_identical_texts(
    study: Study, same: int
) -> None:
    people = np.where(study.labelled, study.human, 0.5)
    identical = np.arange(60 + same) >= 60
    judge = np.concatenate([study.judge, np.ones(same)])
    human = np.concatenate([people, np.full(same, np.nan)])
    found = anchor(judge, human, np.arange(60 + same), identical=identical).estimate
    zeros = np.concatenate([people, np.zeros(same)])
    assert found.difference == pytest.approx(zeros.mean(), abs=1e-9)
    squares = (zeros - zeros.mean()) ** 2 / len(zeros) ** 2
    expected = squares[:60].sum() * 60 / 59 + squares[60:].sum() * (60 + same) / (59 + same)
    assert found.standard_error == pytest.approx(math.sqrt(expected), abs=1e-9)


def test_pairs_that_are_all_identical_are_equal_without_any_label() -> None:
    every = np.ones(60, dtype=np.bool_)
    found = anchor(np.zeros(60), np.full(60, np.nan), np.arange(60), identical=every)
    interval = anchored_interval(found, 0.95, POINTS)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((-0.2385, 0.2385), abs=1e-4)


def test_a_judge_that_agrees_with_every_label_is_not_certain() -> None:
    # 20 labels: up to 17 % of pairs may differ, and by more than the scale, J - H being free.
    study = drawn(4, singletons=True, quality=1.0)
    found = study.anchored()
    agreed = anchor(study.judge, np.where(study.labelled, study.judge, np.nan), study.clusters)
    assert agreed.judge_weight > 0.5
    interval = anchored_interval(agreed, 0.95, POINTS)
    assert interval is not None
    assert interval.high - interval.low > 0.3
    assert anchored_interval(found, 0.95, None) is not None


def test_labels_in_few_clusters_give_no_interval() -> None:
    study = drawn(1, singletons=False, quality=0.8)
    few = np.where(study.clusters < 4, study.human, np.nan)
    found = anchor(study.judge, few, study.clusters)
    assert found.estimate.clusters <= 4
    assert anchored_interval(found, 0.95, POINTS) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda human: np.full(60, np.nan), "0 labelled pairs", id="no labels"),
        pytest.param(
            lambda human: np.where(np.arange(60) == np.flatnonzero(np.isfinite(human))[0], 1, None),
            "in 1 clusters",
            id="one label",
        ),
        pytest.param(lambda human: human[:-1], "one and the same shape", id="lengths"),
    ],
)
def test_labels_that_carry_no_estimate(change: object, said: str) -> None:
    study = drawn(2, singletons=True, quality=0.5)
    human = change(study.human).astype(np.float64)  # type: ignore[operator]
    with pytest.raises(InvalidInput, match=said):
        anchor(study.judge, human, study.clusters)


def test_bad_numbers_are_refused() -> None:
    study = drawn(2, singletons=True, quality=0.5)
    judge = study.judge.copy()
    judge[3] = np.nan
    with pytest.raises(InvalidInput, match="1 pairs lack the judge's difference"):
        anchor(judge, study.human, study.clusters)
    with pytest.raises(InvalidInput, match="above 0 and at most 1"):
        anchor(study.judge, study.human, study.clusters, inclusion=np.zeros(60))
    with pytest.raises(InvalidInput, match="give one each"):
        hajek(np.zeros(3), np.arange(3), np.ones(2))
    assert math.isnan(hajek(np.zeros(0), np.zeros(0, dtype=np.int64)).difference)
    assert hajek(np.ones(1), np.zeros(1, dtype=np.int64)).standard_error is None


def test_clusters_are_covered_where_the_judge_alone_is_wrong() -> None:
    # The judge likes the arm by .3 points more than people do; documents of 1 to 4 items.
    random = np.random.default_rng(20240611)
    clusters = np.repeat(np.arange(80), 1 + np.arange(80) % 4)
    count, rounds, anchored, judged = len(clusters), 1000, 0, 0
    for _ in range(rounds):
        people = 0.1 + 0.6 * random.normal(size=80)[clusters] + 0.8 * random.normal(size=count)
        judge = people + 0.3 + 0.5 * random.normal(size=count)
        human = np.full(count, np.nan)
        chosen = random.permutation(count)[:60]
        human[chosen] = people[chosen]
        interval = anchored_interval(anchor(judge, human, clusters), 0.95, POINTS)
        alone = interval_of(estimate(judge, clusters), 0.95, POINTS)
        assert interval is not None
        assert alone is not None
        anchored += interval.low <= 0.1 <= interval.high
        judged += alone.low <= 0.1 <= alone.high
    assert anchored / rounds >= 0.925 - 4 * math.sqrt(0.925 * 0.075 / rounds)
    assert judged / rounds <= 0.6
