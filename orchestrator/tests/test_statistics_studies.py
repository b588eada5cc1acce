"""Recipes over seeds and plans from pilots, from a study's results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from judged_pairs import around, judged
from paper_study import paper_study
from small_study import SmallStudy, invoke

from tuneproof.analysis import Verdict, compare
from tuneproof.analysis.contrasts import (
    against_wins,
    between_groups,
    contrasts_of,
    weights_over_sizes,
)
from tuneproof.analysis.pilots import pilots_of
from tuneproof.analysis.planning import anchored_reach
from tuneproof.analysis.raters import slope_of
from tuneproof.analysis.seeds import over_seeds_of
from tuneproof.report import build_report, findings, report_json, warnings
from tuneproof.results import Answer, Repeat, StudyResults


def test_a_recipe_of_three_seeds_has_a_verdict_one_of_two_has_none() -> None:
    two, three = (paper_study(seeds=seeds, sizes=(200,)) for seeds in (2, 3))
    found = over_seeds_of(two, compare(two))
    assert {one.why_not for one in found} == {"2 training seeds; a recipe needs 3"}
    assert {one.interval for one in found} == {None}
    comparisons = compare(three)
    for one in over_seeds_of(three, comparisons):
        named = [
            each
            for each in comparisons.primary
            if each.cell.startswith(f"{one.model}-{one.arm}-") and each.measure == one.scale.name
        ]
        assert one.found.seed_means == tuple(pytest.approx(each.difference) for each in named)
        assert one.interval is not None
        assert one.next_seed is not None
        assert one.next_seed.low <= one.interval.low < one.interval.high <= one.next_seed.high
    assert "a recipe needs 3" in build_report(two, compare(two))
    recipes = report_json(three, comparisons)["recipes"]
    assert {one["verdict"] for one in recipes} <= {"better", "worse", "equivalent", "undecided"}


def test_a_claim_about_fine_tuning_needs_the_recipes_own_verdict() -> None:
    two, three = (paper_study(items=60, seeds=seeds, sizes=(200,)) for seeds in (2, 3))
    assert not any(one.recipe for one in findings(two, compare(two)))
    comparisons = compare(three)
    recipes = {
        (one.model, one.arm): one.reading.verdict for one in over_seeds_of(three, comparisons)
    }
    assert recipes["Llama", "full"] is Verdict.WORSE
    found = [one for one in findings(three, comparisons) if one.model == "Llama" and one.recipe]
    assert {one.arm for one in found} >= {"full"}
    # One seed with another verdict: the recipe is not what each of them is.
    other = replace(comparisons.primary[0], verdict=Verdict.BETTER)
    changed = replace(comparisons, primary=(other, *comparisons.primary[1:]))
    first = next(one for one in findings(three, changed) if one.cell == other.cell)
    assert not first.recipe


def test_a_single_seed_is_no_recipe() -> None:
    results = judged(around(0.1))
    assert over_seeds_of(results, compare(results)) == ()


def with_repeats(results: StudyResults, spread: float, count: int = 4) -> StudyResults:
    """Each judged answer read several times, by whole points around its mean."""
    rng = np.random.default_rng(5)

    def read(answer: Answer) -> Answer:
        grade = answer.grade.criteria["accuracy"]
        scores = grade.mean + spread * rng.normal(size=count)
        repeats = tuple(Repeat(seed, float(each), "", "") for seed, each in enumerate(scores))
        graded = replace(grade, mean=float(scores.mean()), repeats=repeats)
        return replace(answer, grade=replace(answer.grade, criteria={"accuracy": graded}))

    return replace(results, answers=tuple(read(one) for one in results.answers))


def test_a_pilot_tells_what_varies_and_how_much_the_next_study_needs() -> None:
    rng = np.random.default_rng(4)
    results = judged([float(each) for each in rng.normal(size=300)])
    results = with_repeats(results, 0.5)
    (pilot,) = pilots_of(results, compare(results))
    assert (pilot.items, pilot.clusters, pilot.repeats) == (300, 300, 4)
    assert pilot.variance.item == pytest.approx(1.0, abs=0.25)
    assert pilot.variance.repeat == pytest.approx(0.5, abs=0.1)
    assert pilot.correlation is None
    assert pilot.best_repeats == 1
    # Where an answer takes sixteen times as long as a judgement, more repeats pay.
    slow = replace(results, stage_seconds={"answers": 1600.0, "grades": 400.0})
    assert pilots_of(slow, compare(slow))[0].best_repeats == 3
    assert 100 < pilot.for_difference < pilot.for_equivalence < 400
    assert pilots_of(judged([0.0] * 60), compare(judged([0.0] * 60))) == ()


def test_plans_of_labels_narrow_with_labels_and_with_a_better_judge() -> None:
    reach = anchored_reach(0.05, 400, 50, 0.6)
    assert anchored_reach(0.05, 400, 100, 0.6) < reach
    assert anchored_reach(0.05, 400, 50, 0.9) < reach < anchored_reach(0.05, 400, 50, 0.0)
    # All labelled: the interval of the labels themselves, whatever the judge.
    assert anchored_reach(0.05, 400, 400, 0.0) == pytest.approx(anchored_reach(0.05, 400, 400, 1.0))


def test_the_plan_of_a_study_that_never_ran_has_no_pilot(capsys, monkeypatch, tmp_path) -> None:
    small = SmallStudy(tmp_path)
    code, out, err = invoke(
        *(capsys, monkeypatch, "study", "plan", str(small.file)), "--state", str(small.state)
    )
    assert code == 0, err
    assert "pilot" not in out


def test_contrasts_over_sizes_find_a_slope_and_a_bend() -> None:
    slope, bend = weights_over_sizes([100, 200, 400])
    assert slope @ np.array([1.0, 2.0, 3.0]) == pytest.approx(1.0)
    assert slope @ np.array([2.0, 2.0, 2.0]) == pytest.approx(0.0)
    assert bend is not None
    assert bend @ np.array([1.0, 2.0, 3.0]) == pytest.approx(0.0)
    assert bend @ np.array([0.0, 1.0, 0.0]) == pytest.approx(1.0)
    assert weights_over_sizes([100, 300])[1] is None


def test_a_studys_contrasts_are_of_its_differences() -> None:
    results = paper_study(seeds=2)
    found = contrasts_of(results)
    comparisons = {(one.cell, one.measure): one for one in compare(results).primary}

    def mean(model: str, arm: str, size: int) -> float:
        names = [f"{model}-{arm}-{size}-s{seed}" for seed in (1, 2)]
        return float(np.mean([comparisons[name, "accuracy"].difference for name in names]))

    by_name = {(one.kind, one.name): one for one in found if one.measure == "accuracy"}
    weights, _ = weights_over_sizes([200, 500, 1000])
    slope = by_name["slope", "Llama full: for each doubling of the pairs"]
    expected = weights @ np.array([mean("Llama", "full", size) for size in (200, 500, 1000)])
    assert slope.value == pytest.approx(expected)
    both = by_name["models", "full 1000: Llama minus Mistral"]
    expected = mean("Llama", "full", 1000) - mean("Mistral", "full", 1000)
    assert both.value == pytest.approx(expected)
    assert ("bend", "Mistral short: bend of that line") in by_name
    assert "contrasts, exploratory" in build_report(results, compare(results))


def test_found_and_missed_are_compared_as_groups() -> None:
    differences = [-0.5 if item % 5 == 0 else 0.3 for item in range(200)]
    results = judged(differences, missed=range(0, 200, 5))
    (one,) = [each for each in contrasts_of(results) if each.kind == "passages"]
    assert one.value == pytest.approx(0.8)
    # Welch's t test of two groups of single items, up to G/(G - 1) for n/(n - 1) of each group.
    rng = np.random.default_rng(1)
    values, first = rng.normal(size=200), np.arange(200) % 4 == 0
    found = between_groups(values, np.arange(200), first)
    assert found is not None
    error = np.sqrt(values[first].var() / 50 + values[~first].var() / 150)
    assert found.standard_error == pytest.approx(error * np.sqrt(200 / 199))
    assert between_groups(values, np.zeros(200, dtype=np.int64), first) is None


def test_wins_and_means_that_disagree() -> None:
    """Most answers gain a little, a few lose much."""
    differences = [-3.0 if item % 5 == 0 else 0.2 for item in range(200)]
    results = judged(differences)
    (wins,) = [each for each in contrasts_of(results) if each.kind == "wins"]
    assert wins.value == pytest.approx(0.6)
    (one,) = compare(results).primary
    assert against_wins(results, compare(results)) == (one,)
    other = judged(around(0.3))
    assert against_wins(other, compare(other)) == ()
    notes = [each.text for each in warnings(results, compare(results))]
    assert any("more answers gain than lose" in text for text in notes)


def test_the_slope_of_the_judges_error_is_statsmodels() -> None:
    import statsmodels.api

    rng = np.random.default_rng(2)
    clusters = np.repeat(np.arange(30), 3)
    places = rng.normal(size=90)
    values = 0.3 * places + rng.normal(size=30)[clusters] + rng.normal(size=90)
    found = slope_of(places, values, clusters)
    fitted = statsmodels.api.OLS(values, statsmodels.api.add_constant(places)).fit(
        cov_type="cluster", cov_kwds={"groups": clusters}
    )
    assert found is not None
    assert found.value == pytest.approx(fitted.params[1], rel=1e-10)
    assert found.standard_error == pytest.approx(fitted.bse[1], rel=1e-10)
    assert slope_of(np.ones(90), values, clusters) is None
