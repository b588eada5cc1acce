"""Cost, tokens and latency of an answer: measured alone, priced by the study file."""

from __future__ import annotations

import json
import re
from functools import partial

import pytest
from fakes import served
from small_study import SmallStudy, invoke

from tuneproof.analysis import compare
from tuneproof.analysis.costs import costs_by_cell
from tuneproof.report import build_report, report_json
from tuneproof.report.costs import cost_note, cost_rows

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]
SERVICES = "services: {model: tiny"


@pytest.fixture
def small(tmp_path):
    return SmallStudy(tmp_path)


@pytest.fixture
def run(small, capsys, monkeypatch):
    call = partial(invoke, capsys, monkeypatch)
    return lambda *words: call("study", *words, "--state", str(small.state))


async def test_each_cell_is_timed_alone_and_only_once(small):
    small.edit(SERVICES, "costs: {timed: 3}\n" + SERVICES)
    world = small.world()
    async with served(world) as target:
        results = await small.run(target)
        assert len(world.alone) == 3 * 3
        assert sorted(map(world.alone.count, set(world.alone))) == [3, 3, 3]
        assert world.alone == sorted(world.alone, key=world.alone.index), "cell after cell"
        await small.run(target)
        assert len(world.alone) == 9
        small.edit("timed: 3", "timed: 4")
        await small.run(target)
        assert len(world.alone) == 12
    for cell in results.cells:
        assert cell.alone.answers == 3
        assert cell.alone.seconds == pytest.approx(0.300)
        assert cell.alone.first_token_seconds == pytest.approx(0.050)
        assert cell.alone.cached_share == pytest.approx(0.4)


async def test_none_is_timed_where_the_file_says_so(small, run):
    small.edit(SERVICES, "costs: {timed: 0}\n" + SERVICES)
    world = small.world()
    async with served(world) as target:
        results = await small.run(target)
    assert world.alone == []
    assert cost_rows(results) == ()
    code, out, _ = run("status", str(small.file), "--json")
    assert code == 0
    assert "timing" not in {stage["stage"] for stage in json.loads(out)["stages"]}
    assert json.loads(out)["complete"]


@pytest.mark.parametrize(
    "case",
    [
        ("prompt_tokens: 2, completion_tokens: 10", (10 * 2 + 3 * 10) / 1e6, "tokens", "0.05 USD"),
        ("gpu_hour: 36, currency: EUR", 36 * 0.3 / 3600, "gpu", "3 EUR"),
    ],
)
async def test_prices_of_the_file_make_the_cost(small, run, case):
    prices, price, by, shown = case
    small.edit(SERVICES, f"costs: {{{prices}}}\n{SERVICES}")
    async with served(small.world()) as target:
        results = await small.run(target)
    for cost in costs_by_cell(results).values():
        assert (cost.prompt_tokens, cost.completion_tokens) == (10, 3)
        assert cost.price == pytest.approx(price)
        assert cost.by == by
    assert {row.price for row in cost_rows(results)} == {shown}
    comparisons = compare(results)
    value = report_json(results, comparisons)
    assert value["cells"][1]["cost"]["price"] == pytest.approx(price)
    assert value["cells"][1]["cost"]["alone"]["answers"] == 5
    assert value["prices"]["currency"] in shown
    page = build_report(results, comparisons)
    assert shown in page
    assert cost_note(results) in page
    code, out, err = run("report", str(small.file))
    assert code == 0, err
    assert re.search(rf"baseline +10 +3 +0\.05 s +0\.30 s +{shown}", out), out


async def test_a_request_that_fails_is_noted_and_tried_again(small, run):
    world = small.world(wrong_adapter=False)
    async with served(world) as target:
        await small.run(target)
        small.edit(SERVICES, "costs: {timed: 6}\n" + SERVICES)
        world.wrong_adapter = True
        results = await small.run(target)
        assert [cell.alone.answers for cell in results.cells] == [6, 5, 5]
        _, out, _ = run("status", str(small.file), "--json")
        stages = {stage["stage"]: stage for stage in json.loads(out)["stages"]}
        counted = {name: stages["timing"][name] for name in ("done", "total", "failed")}
        assert counted == {"done": 16, "total": 18, "failed": 2}
        world.wrong_adapter = False
        results = await small.run(target)
    assert [cell.alone.answers for cell in results.cells] == [6, 6, 6]


@pytest.mark.parametrize(
    ("costs", "told"),
    [
        ("prompt_tokens: 1", "costs.prompt_tokens: needs `completion_tokens` beside it"),
        ("completion_tokens: 1", "costs.completion_tokens: needs `prompt_tokens` beside it"),
        ("gpu_hour: 1, prompt_tokens: 1, completion_tokens: 1", "leave out `gpu_hour`"),
        ("gpu_hour: 1, timed: 0", "costs.timed: must be 1 or more"),
        ("gpu_hour: 0", "costs.gpu_hour"),
        ("timed: -1", "costs.timed"),
        ("per_hour: 1", "costs.per_hour"),
    ],
)
def test_bad_prices_are_told_with_their_line(small, run, costs, told):
    small.edit(SERVICES, f"costs: {{{costs}}}\n{SERVICES}")
    code, out, err = run("plan", str(small.file))
    assert code == 2
    assert told in err
    assert re.search(r"small\.yaml:\d+: ", err)
    assert out == ""
