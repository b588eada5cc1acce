"""Load with swaps against a pool that is right, and against pools that are wrong in one way."""

from __future__ import annotations

import json
import re
from contextlib import aclosing
from dataclasses import replace

import pytest
from loadtest_pool import World, pool_served, ref_of, word_of
from small_study import finished

from tuneproof.loadtest import GrpcDoor, LoadSpec, Probe, Probes, SwapSpec, run_swaps
from tuneproof.sdk import GeneratorClient
from tuneproof.servicekit.errors import InvalidInput

pytestmark = [pytest.mark.long, pytest.mark.timeout(60)]

LOAD = LoadSpec(rate=80.0, seconds=0.35, in_flight=3, full_seconds=0.15, base_share=0.2)
SWAPS = SwapSpec(tuple(map(ref_of, (0, 2))), tuple(map(ref_of, (1, 3, 4))), rate=12.0)


def probes() -> Probes:
    """Each adapter's word and nothing else, whatever it is asked."""
    said = [Probe(ref_of(n), None, re.compile(rf"(?:{word_of(ref_of(n))} ?)+")) for n in range(8)]
    return Probes([*said, Probe("base", None, re.compile(r"(?:base ?)+"))])


async def loaded(world, load=LOAD, swaps=SWAPS, known=None, progress=lambda _: None):
    known = probes() if known is None else known
    async with (
        pool_served(world) as target,
        GeneratorClient(target) as client,
        aclosing(GrpcDoor(target, token=None)) as door,
    ):
        return await run_swaps(door, client, load, swaps, probes=known, progress=progress)


async def test_a_right_pool_gives_no_failure_and_no_wrong_answer():
    world = World()
    # On a loaded machine swaps come late: time for twice as many as are asked for.
    result = await loaded(world, replace(LOAD, seconds=0.7))
    figures = result.figures
    assert (figures.failed, figures.failed_swaps, figures.wrong_adapter) == (0, 0, 0)
    assert figures.swaps >= 4
    assert figures.checked_digest == figures.checked_text == figures.requests
    assert figures.throughput_ratio is not None
    assert figures.p99_ratio is not None
    assert figures.first_token_ratio is not None
    asked = {reply.model for phase in result.phases for reply in phase.replies}
    assert asked == {"loadtest-0", "loadtest-1", ""}
    assert {(phase.side, phase.load) for phase in result.phases} == {
        (side, load) for side in ("quiet", "swap") for load in ("open", "full")
    }


async def test_a_swap_declares_asks_moves_and_removes_in_this_order():
    world = World()
    result = await loaded(world)
    swap = next(swap for phase in result.phases for swap in phase.swaps)
    calls = world.calls[world.calls.index(("declare", swap.new)) :]
    assert calls[:3] == [
        ("declare", swap.new),
        ("alias", swap.alias, swap.new),
        ("remove", swap.old),
    ]
    assert swap.started < swap.ready < swap.moved < swap.removed
    assert swap.first_seconds > 0
    assert swap.warm_seconds > 0
    assert swap.stage_seconds == dict.fromkeys(("fetch", "verify", "load", "warm"), 0.002)


async def test_nothing_stays_behind_unless_it_is_wished():
    world = World()
    await loaded(world)
    assert not world.declared
    assert not world.aliases
    kept = World()
    swaps = SwapSpec(SWAPS.adapters, SWAPS.supply, SWAPS.rate, keep=True)
    await loaded(kept, swaps=swaps)
    assert len(kept.declared) == 2
    assert set(kept.aliases.values()) == kept.declared


async def test_an_alias_that_does_not_follow_is_a_wrong_adapter():
    result = await loaded(World(stale=True))
    wrong = [reply for phase in result.phases for reply in phase.replies if reply.wrong]
    assert result.figures.wrong_adapter == len(wrong) > 0
    assert all(re.search(r"reader-\d@0+ served, reader-.* was asked", r.wrong) for r in wrong)
    assert {reply.model for reply in wrong} <= {"loadtest-0", "loadtest-1"}


async def test_a_server_that_names_the_right_adapter_and_uses_another_is_seen_by_its_answers():
    result = await loaded(World(stale=True, lies=True))
    wrong = [reply for phase in result.phases for reply in phase.replies if reply.wrong]
    assert wrong
    assert all(re.search(r"reader-\d@0+ does not say 'word", r.wrong) for r in wrong)
    blind = await loaded(World(stale=True, lies=True), known=Probes())
    assert blind.figures.wrong_adapter == 0
    assert blind.figures.checked_text == 0


async def test_a_refused_request_counts_as_failed_and_is_not_sent_again():
    world = World()

    def refuse(text: str) -> None:
        world.refusals = 3 if text.startswith("round 1 of 1: arrivals without") else 0

    result = await loaded(world, progress=refuse)
    assert result.figures.failed == 3
    assert result.figures.errors == {"no room": 3}


async def test_an_adapter_that_does_not_load_is_a_failed_swap_and_hurts_nobody():
    world = World(failing={ref_of(3)})
    result = await loaded(world)
    failed = [swap for phase in result.phases for swap in phase.swaps if swap.error]
    assert result.figures.failed_swaps == len(failed) > 0
    assert all(swap.new == ref_of(3) and "bad weights" in swap.error for swap in failed)
    assert (result.figures.failed, result.figures.wrong_adapter) == (0, 0)
    assert not world.declared


@pytest.mark.parametrize(
    ("world", "swaps", "said"),
    [
        (World(declared={ref_of(1)}), SWAPS, "already declared"),
        (World(places=2), SWAPS, "max_cpu_loras"),
        (World(), SwapSpec(SWAPS.adapters, (), 1.0), "too few"),
        (World(), SwapSpec(SWAPS.adapters, SWAPS.adapters, 1.0), "named twice"),
        (World(), SwapSpec(SWAPS.adapters, SWAPS.supply, 1.0, residents=("x",)), "not declared"),
    ],
)
async def test_what_cannot_be_tested_is_said_before_anything_is_touched(world, swaps, said):
    before = set(world.declared)
    with pytest.raises(InvalidInput, match=said):
        await loaded(world, swaps=swaps)
    assert world.declared == before
    assert not world.calls


async def test_residents_are_asked_and_left_alone():
    world = World(declared={ref_of(6)})
    swaps = SwapSpec(SWAPS.adapters, SWAPS.supply, SWAPS.rate, residents=(ref_of(6),))
    result = await loaded(world, swaps=swaps)
    assert world.declared == {ref_of(6)}
    assert any(reply.model == ref_of(6) for phase in result.phases for reply in phase.replies)
    assert result.figures.wrong_adapter == 0


@pytest.mark.process
@pytest.mark.slow
async def test_the_command_ends_by_its_objectives(tmp_path):
    refs, slo, report = tmp_path / "refs.txt", tmp_path / "slo.yaml", tmp_path / "page.html"
    refs.write_text("\n".join(ref_of(n) for n in range(6)))
    lines = [{"adapter": ref_of(n), "expect": f"({word_of(ref_of(n))} ?)+"} for n in range(6)]
    probe = tmp_path / "probes.jsonl"
    probe.write_text("\n".join(map(json.dumps, [*lines, {"adapter": "base", "expect": "base.*"}])))
    slo.write_text("{failed: 0, wrong_adapter: 0, swaps: 1, first_token: {p99: 30}}")
    flags = ["--pool", str(refs), "--adapters", "2", "--swaps-per-minute", "600", "--json"]
    flags += ["--rate", "40", "--duration", "1.5", "--rounds", "1", "--probe", str(probe)]
    flags += ["--slo", str(slo), "--report", str(report)]

    async def run(world: World, *more: str):
        async with pool_served(world) as target:
            return await finished("loadtest", "swap", "--generator", target, *flags, *more)

    code, out, err = await run(World())
    told = json.loads(out)
    assert code == 0, err
    assert told["met"]
    assert told["results"]["checked_text"] == told["results"]["requests"] > 20
    assert "Every objective is met" in report.read_text()

    code, out, _ = await run(World(stale=True))
    told = json.loads(out)
    assert code == 1
    assert [check["name"] for check in told["checks"] if not check["met"]] == ["wrong_adapter"]
    assert told["wrong"]
    assert "objectives missed: wrong_adapter" in report.read_text()
