"""Killing a study in the middle, and giving the same command again."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
from collections import Counter
from contextlib import contextmanager

import pytest
from fakes import served
from small_study import SmallStudy, command, finished

from tuneproof.study.design.identity import Identities
from tuneproof.study.design.prepare import Request, prepare, recall
from tuneproof.study.state.store import open_state
from tuneproof.study.status import last_status, status_of
from tuneproof.study.steps.chain import Chain

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(240)]

GRID = ("training: {sizes: [8], seeds: [1]", "training: {sizes: [4, 8], seeds: [1, 2]")


@pytest.fixture
def small(tmp_path):
    study = SmallStudy(tmp_path)
    study.edit(*GRID)
    return study


def run_arguments(small):
    return ["study", "run", str(small.file), "--state", str(small.state), "--json"]


def rows_without_addresses(small):
    """What a run left; the pool's start time is the fakes' own."""
    return {key: row for key, row in small.rows().items() if row[0] != "pool"}


@pytest.mark.parametrize("stages", ["overlapping", "in-turn"])
async def test_kills_lose_nothing_and_repeat_nothing(small, tmp_path_factory, stages):
    small.file.write_text(small.file.read_text() + f"execution: {{stages: {stages}}}\n")
    whole = SmallStudy(tmp_path_factory.mktemp("whole"))
    whole.edit(*GRID)
    async with served(whole.world()) as target:
        await whole.run(target)

    world = small.world(delay=0.01)
    rng = random.Random(5)
    kills = 0
    done_before: list[tuple[Counter, Counter]] = []
    async with served(world) as target:
        small.announce(target)
        for share in (0.2, 0.65):
            wanted = int(share * len(whole.rows())) + rng.randint(0, 9)
            process = await command(*run_arguments(small))
            while process.returncode is None and _stored(small) < wanted:
                await asyncio.sleep(0.01)
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            await process.communicate()
            assert last_counts(small) == counted_anew(small)
            done_before.append(_asked_for_what_is_stored(small, world))
        code, _, err = await finished(*run_arguments(small))
    assert kills == 2
    assert code == 0, err
    assert rows_without_addresses(small) == rows_without_addresses(whole)
    for prompts, grades in done_before:
        assert prompts
        assert {key: world.prompts[key] for key in prompts} == prompts
        assert {key: world.grades[key] for key in grades} == grades
    assert world.calls["CreateRun"] == _kinds(whole)["training"]


async def test_an_interrupt_says_how_to_go_on(small):
    world = small.world(delay=0.05)
    async with served(world) as target:
        small.announce(target)
        process = await command(*run_arguments(small))
        while process.returncode is None and _stored(small) < 40:
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert process.returncode == 130
        assert "the same command continues where this one stopped" in err.decode()
        assert "Traceback" not in err.decode()
        world.delay = 0.0
        code, _, err = await finished(*run_arguments(small))
    assert code == 0, err
    assert max(world.prompts.values()) <= 2  # what was in flight is asked once more


async def test_a_second_process_is_told_who_holds_the_state(small):
    world = small.world(delay=0.2)
    async with served(world) as target:
        small.announce(target)
        first = await command(*run_arguments(small))
        while first.returncode is None and _stored(small) < 10:
            await asyncio.sleep(0.01)
        code, out, err = await finished(*run_arguments(small))
        first.kill()
        await first.communicate()
    assert code == 5
    assert f"in use by process {first.pid}, since 20" in err
    assert out == ""


def last_counts(small):
    """What the run counted, as `study status` reads it."""
    with last_run(small) as chain:
        return {each.stage: each.done for each in last_status(chain.state, chain.plan.spec)}


def counted_anew(small):
    with last_run(small) as chain:
        return {each.stage: each.done for each in status_of(chain)}


@contextmanager
def last_run(small):
    with open_state(small.state, write=False) as state:
        remembered = recall(state, small.file)
        prepared = prepare(Request(small.file, small.state), remembered=remembered)
        yield Chain(prepared.plan, Identities.from_json(remembered["identities"]), state)


def _stored(small):
    try:
        return len(small.rows())
    except sqlite3.OperationalError:  # not made yet
        return 0


def _asked_for_what_is_stored(small, world):
    """How often the services were asked for what the state holds now."""
    prompts, grades = Counter(), Counter()
    for kind, inputs, _ in small.rows().values():
        given = json.loads(inputs)
        if kind == "answer":
            key = given["adapter"], given["messages"][-1]["content"]
            prompts[key] = world.prompts[key]
        elif kind == "grade":
            rubrics = tuple(name for name, _ in given["rubrics"])
            key = given.get("question", ""), given["answer"], rubrics
            grades[key] = world.grades[key]
    return prompts, grades


def _kinds(small):
    kinds = [kind for kind, _, _ in small.rows().values()]
    return {kind: kinds.count(kind) for kind in set(kinds)}
