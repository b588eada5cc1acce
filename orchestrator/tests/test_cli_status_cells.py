"""`study status --cells`: how far each cell of each model is, and why one is not."""

from __future__ import annotations

import json
import re
from contextlib import AsyncExitStack
from functools import partial

import pytest
from fakes import served
from small_study import SmallStudy, invoke
from test_study_models import Bench

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]


@pytest.fixture
def small(tmp_path):
    return SmallStudy(tmp_path)


@pytest.fixture
def run(capsys, monkeypatch):
    return partial(invoke, capsys, monkeypatch)


def status_of(run, small, *more):
    return run("study", "status", str(small.file), "--state", str(small.state), "--cells", *more)


async def test_every_cell_of_every_model_is_counted(small, run):
    bench = Bench(small)
    async with AsyncExitStack() as stack:
        first = await bench.start(stack)
        bench.one.failing_runs = {"short-8-s1"}
        await small.run(first)
    code, out, err = status_of(run, small, "--json")
    assert code == 0, err
    cells = {one["cell"]: one for one in json.loads(out)["cells"]}
    assert [(one["model"], one["training"]) for one in cells.values()] == [
        ("one", "none"),
        ("one", "failed"),
        ("one", "done"),
        ("two", "none"),
        ("two", "failed"),
        ("two", "done"),
    ]
    failed, done = cells["one-short-8-s1"], cells["two-closed-8-s1"]
    assert (failed["answers"], failed["grades"], failed["questions"]) == (0, 0, 12)
    assert failed["why"]
    assert (done["answers"], done["grades"], done["failed"], done["why"]) == (12, 12, 0, "")
    code, out, _ = status_of(run, small)
    assert code == 0
    assert re.search(r"two +two-closed-8-s1 +done +12 +12 +12 +0", out), out


async def test_what_was_asked_with_other_settings_is_not_counted(small, run):
    async with served(small.world()) as target:
        await small.run(target)
    small.edit("max_tokens: 32", "max_tokens: 33")
    code, out, err = status_of(run, small, "--json")
    assert code == 0, err
    cells = json.loads(out)["cells"]
    assert [one["training"] for one in cells] == ["none", "done", "done"]
    assert {one["answers"] for one in cells} == {0}


async def test_a_question_that_fails_is_told_with_its_cell(small, run):
    world = small.world()
    async with served(world) as target:
        results = await small.run(target)
        small.edit("max_tokens: 32", "max_tokens: 33")
        world.failing_questions = {results.items[0].question}
        await small.run(target)
    code, out, err = status_of(run, small, "--json")
    assert code == 0, err
    cells = json.loads(out)["cells"]
    assert {(one["answers"], one["failed"]) for one in cells} == {(11, 1)}
    assert all(one["why"] for one in cells)


async def test_one_base_without_a_name_needs_no_column(small, run):
    async with served(small.world()) as target:
        await small.run(target)
    code, out, err = status_of(run, small)
    assert code == 0, err
    assert re.search(r"\ncell +training +answers +grades +of +failed", out), out
    assert re.search(r"\nbaseline +12 +12 +12 +0", out), out
    code, _, err = status_of(run, small, "--watch")
    assert code == 2
    assert "leave it out, or --cells" in err
