"""Rubrics with scales of their own through a whole study: nothing takes 1 to 5 for granted."""

from __future__ import annotations

import re

import pytest
from fakes import served
from small_study import SmallStudy

from tuneproof.analysis import compare
from tuneproof.cli.verdict_table import verdict_table
from tuneproof.judge.v1 import judge_pb2 as pb
from tuneproof.report import build_report, report_json
from tuneproof.report.plots import forests, scatter
from tuneproof.results import Measure, StudyResults

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def results(tmp_path) -> StudyResults:
    small = SmallStudy(tmp_path)
    small.write_rubric("accuracy", scale=(0, 10))
    small.write_rubric("completeness", scale=(1, 3))
    small.edit("documents: 20", "documents: 60")
    small.edit("test_items: 12", "test_items: 30")
    async with served(small.world()) as target:
        return await small.run(target)


async def test_the_scales_of_the_rubrics_reach_intervals_plots_and_tables(results) -> None:
    assert results.criteria == (
        Measure("accuracy", 0, 10, "points"),
        Measure("completeness", 1, 3, "points"),
    )
    comparisons = compare(results)
    limits = {"accuracy": 10.0, "completeness": 2.0}
    for one in comparisons.primary:
        assert one.interval is not None
        assert one.difference is not None
        assert one.interval.low < one.difference < one.interval.high
        assert max(abs(one.interval.low), abs(one.interval.high)) <= limits[one.measure]
    # The fake's tuned answers keep a few words of the reference: they lose more than 4 points,
    # which is all that a scale from 1 to 5 would allow.
    assert min(one.difference for one in comparisons.primary) < -4.0

    wide, narrow = forests(results, comparisons)
    assert (wide.unit, narrow.unit) == ("points, 0 to 10", "points, 1 to 3")
    for forest in (wide, narrow):
        for row in forest.rows:
            assert 0 < row.low < row.point < row.high < 100
    drawn = scatter(results)
    assert drawn is not None
    assert [rung.text for rung in drawn.rungs][:: len(drawn.rungs) - 1] == ["1.0", "3.0"]
    assert all(0 <= dot.y <= 300 for dot in drawn.dots)

    page = build_report(results, comparisons)
    assert "accuracy in points, 0 to 10, completeness in points, 1 to 3" in page
    assert not re.search(r"1 to 5|1 \(worst\)", page)
    scales = {
        one["measure"]: one["scale"] for one in report_json(results, comparisons)["comparisons"]
    }
    assert (scales["accuracy"]["high"], scales["completeness"]["high"]) == (10, 3)
    assert verdict_table(results, comparisons).title.startswith(
        "small: verdicts by judge tiny (95 %"
    )


async def test_a_judge_is_not_examined_on_another_scale(results) -> None:
    # The data set knows right scores from 1 to 5; on other scales they would be wrong.
    assert results.judge_checks == ()


@pytest.mark.slow
async def test_how_a_study_wants_to_be_judged_is_asked_for_and_in_the_key(tmp_path) -> None:
    small = SmallStudy(tmp_path)
    small.edit("repeats: 2,", "repeats: 2, mode: weighted,")
    small.edit("  - {name: closed, tune: {references: full, context: none}}\n", "")
    small.edit("checks: {reader: {facts: 4, items: 5}, judge: {forms: 6}}\n", "")
    small.edit("test_items: 12", "test_items: 2")
    world = small.world()
    async with served(world) as target:
        results = await small.run(target)
        weighted = len(world.ways)
        small.edit("mode: weighted", "joint: true")
        joint = await small.run(target)
        small.edit("repeats: 2, joint: true", "repeats: 3, joint: true, settled_after: 2")
        settled = await small.run(target)
    ways = [(pb.MODE_WEIGHTED, False, 0), (pb.MODE_SAMPLED, True, 0), (pb.MODE_SAMPLED, True, 2)]
    assert world.ways == [way for way in ways for _ in range(weighted)]
    told = [one.provenance["judge"] for one in (results, joint, settled)]
    assert ", weighted, 2 repeats" in told[0]
    assert ", all criteria in one form, 2 repeats" in told[1]
    assert ", 3 repeats (2 where these agree)" in told[2]
