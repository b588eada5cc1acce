"""A study whose judge also says which of two answers is better."""

from __future__ import annotations

import asyncio
import json

import pytest
from fakes import served
from small_study import SmallStudy, invoke

from tuneproof.analysis.preferences import preferences_of

pytestmark = pytest.mark.timeout(120)


def test_pairs_are_compared_once_and_identical_answers_are_ties(
    tmp_path, capsys, monkeypatch
) -> None:
    small = SmallStudy(tmp_path)
    small.edit("repeats: 2, seed: 1}", "repeats: 2, seed: 1, compare: 3}")
    world = small.world()

    async def run():
        async with served(world) as target:
            return await small.run(target)

    results = asyncio.run(run())
    pairs = {(one.cell, one.against) for one in results.preferences}
    assert pairs == {("short-8-s1", "baseline"), ("closed-8-s1", "baseline")}
    assert len(results.preferences) == 2 * 2 * len(results.items)
    texts = {(one.cell, one.item): one.text for one in results.answers}
    for one in results.preferences:
        if texts[one.cell, one.item] == texts[one.against, one.item]:
            assert one.repeats == (("tie", "tie"),)
        else:
            assert len(one.repeats) == 3
    asked = world.calls["CompareBatch"]
    assert asked > 0
    found = {(one.cell, one.criterion): one for one in preferences_of(results)}
    # Short references lack words that the baseline's answers have.
    assert found["short-8-s1", "completeness"].net.difference < 0.0

    again = asyncio.run(run())
    assert again.preferences == results.preferences
    assert world.calls["CompareBatch"] == asked

    flags = [str(small.file), "--state", str(small.state), "--json"]
    code, out, _ = invoke(capsys, monkeypatch, "study", "report", *flags)
    assert code == 0
    assert len(json.loads(out)["preferences"]) == 4
    code, out, _ = invoke(capsys, monkeypatch, "study", "status", *flags)
    assert code == 0
    (stage,) = [one for one in json.loads(out)["stages"] if one["stage"] == "comparisons"]
    # Two criteria of each pair that differs; equal pairs of two arms share one piece of work.
    differing = sum(len(one.repeats) == 3 for one in results.preferences) // 2
    assert stage["done"] == stage["total"] == differing >= asked
    code, out, _ = invoke(capsys, monkeypatch, "study", "plan", str(small.file), "--json")
    assert json.loads(out)["counts"]["choices between answers"] == 2 * 3 * 4 * 12


@pytest.mark.parametrize(("late", "again"), [(1, False), (2, True)])
async def test_a_comparison_that_the_endpoint_failed_is_asked_for_again(
    tmp_path, late, again
) -> None:
    small = SmallStudy(tmp_path)
    small.edit("repeats: 2, seed: 1}", "repeats: 2, seed: 1, compare: 3}")
    world = small.world()
    async with served(world) as target:
        first = await small.run(target)
    pair = next(one for one in first.preferences if len(one.repeats) == 3)
    texts = {(one.cell, one.item): one.text for one in first.answers}
    small.state.rename(tmp_path / "old-state")
    world = small.world(late_choices={texts[pair.cell, pair.item]: late})
    async with served(world) as target:
        broken = await small.run(target)
        asked = world.calls["CompareBatch"]
        world.late_choices = {}
        whole = await small.run(target)
    assert pair not in broken.preferences
    places = {(one.cell, one.against, one.item) for one in broken.preferences}
    assert ((pair.cell, pair.against, pair.item) in places) is not again
    assert (world.calls["CompareBatch"] > asked) == (pair in whole.preferences) == again


def test_a_study_that_does_not_ask_has_no_such_stage(tmp_path, capsys, monkeypatch) -> None:
    small = SmallStudy(tmp_path)

    async def run():
        async with served(small.world()) as target:
            return await small.run(target)

    assert asyncio.run(run()).preferences == ()
    code, out, _ = invoke(
        capsys,
        monkeypatch,
        "study",
        "status",
        str(small.file),
        "--state",
        str(small.state),
        "--json",
    )
    assert code == 0
    assert "comparisons" not in {one["stage"] for one in json.loads(out)["stages"]}
