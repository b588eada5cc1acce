"""Recipes over seeds and plans from pilots, from a study's results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from judged_pairs import around, judged
from paper_study import paper_study
from small_study import SmallStudy, invoke

from tuneproof.analysis import compare
from tuneproof.analysis.pilots import pilots_of
from tuneproof.analysis.planning import anchored_reach
from tuneproof.analysis.seeds import over_seeds_of
from tuneproof.report import build_report, report_json
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
