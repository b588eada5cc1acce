"""A study with interim looks: it stops when all is decided, and goes on where it was."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from fakes import served
from judged_pairs import around, judged
from small_study import SmallStudy, invoke

from tuneproof.analysis import compare
from tuneproof.analysis.looks import plan_looks
from tuneproof.report import warnings
from tuneproof.results import Looks
from tuneproof.servicekit.errors import WrongState
from tuneproof.study.opened import Study

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

STOPS = Looks(4, 2, (0.25, 0.5, 0.75, 1.0))


def test_each_look_has_its_own_interval_and_the_report_says_which() -> None:
    results = judged(around(0.1, 1.0))
    at_once, at_look = compare(results), compare(replace(results, looks=STOPS))
    planned = plan_looks(STOPS.fractions, 0.95)[1]
    assert at_look.adjusted_confidence == planned.confidence > at_once.adjusted_confidence
    assert (at_once.look, at_look.look) == ("", "look 2 of 4")
    notes = [one.text for one in warnings(replace(results, looks=STOPS), at_look)]
    assert "Look 2 of 4 that were planned, at 50 % of the questions." in notes
    open_ = judged(around(0.1, 2.0))
    assert any("study run --looks 4" in one.text for one in warnings(open_, compare(open_)))


def test_decided_means_every_primary_comparison() -> None:
    assert compare(judged(around(1.0))).decided
    assert not compare(judged(around(0.1, 2.0))).decided
    assert not compare(replace(judged(around(1.0)), primary=())).decided


@pytest.fixture
def small(tmp_path) -> SmallStudy:
    study = SmallStudy(tmp_path)
    study.edit("test_items: 12", "test_items: 30")
    study.edit("facts_per_document: 4", "facts_per_document: 2")
    study.edit("documents: 20", "documents: 64")
    return study


def run(small: SmallStudy, world, looks: int):
    async def once():
        async with served(world) as target:
            return await small.run(target, looks=looks)

    return asyncio.run(once())


def test_a_study_stops_at_the_look_that_decides_and_asks_no_more(small, capsys, monkeypatch):
    world = small.world()
    results = run(small, world, 4)
    assert results.looks is not None
    assert results.looks.taken < 4
    assert compare(results).decided
    assert len(results.items) < 30
    assert world.calls["GenerateBatch"] < 30 * 3
    asked = dict(world.calls)
    # A second run asks for no more, without the flag neither.
    assert run(small, world, 0).looks == results.looks
    assert dict(world.calls) == asked
    assert Study.open(small.file, small.state).results.looks == results.looks
    code, out, _ = invoke(
        *(capsys, monkeypatch, "study", "report", str(small.file)),
        *("--state", str(small.state), "--json"),
    )
    assert code == 0
    assert f"look {results.looks.taken} of 4" in json.loads(out)["intervals"]["look"]
    with pytest.raises(WrongState, match="looks are planned before the first score"):
        run(small, world, 5)


def test_looks_cannot_be_planned_once_answers_are_judged(small) -> None:
    small.edit("test_items: 30", "test_items: 12")
    world = small.world()
    assert run(small, world, 0).looks is None
    with pytest.raises(WrongState, match="without looks"):
        run(small, world, 2)


def test_an_undecided_study_looks_to_its_end(small) -> None:
    """Eight questions are in too few documents to decide anything."""
    small.edit("tune: {references: short}", "tune: {references: full}")
    small.edit("accuracy: 0.25, completeness: 0.25", "accuracy: 0.001, completeness: 0.001")
    small.edit("test_items: 30", "test_items: 8")
    results = run(small, small.world(), 2)
    assert results.looks is not None
    assert results.looks.taken == len(results.looks.fractions)
    assert len(results.items) == 8
