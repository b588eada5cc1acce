"""Trainings, answers and grades: what overlaps, in which order, and what a failure leaves."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import groupby

import pytest
from fakes import served
from small_study import SmallStudy
from test_study_kill import counted_anew, last_counts

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

GRID = ("training: {sizes: [8], seeds: [1]", "training: {sizes: [4, 8], seeds: [1, 2]")
ROOMY = {"max_loras": 4, "max_cpu_loras": 16}


@pytest.fixture
def small(tmp_path):
    study = SmallStudy(tmp_path)
    study.edit(*GRID)
    return study


async def test_answers_are_graded_while_others_train(small):
    small.edit(", judge: {forms: 6}", "")
    trains = asyncio.Event()
    world = small.world(train_after=trains)
    # No adapter is trained before the base model's answers are all judged.
    world.on_grade = lambda: world.calls["GradeBatch"] < 12 or trains.set()
    async with served(world) as target:
        results = await small.run(target)
    assert not any(answer.error for answer in results.answers)
    first = world.events.index("trained")
    assert {"answered", "graded"} <= set(world.events[:first])


async def test_in_turn_no_stage_begins_before_the_one_before_has_ended(small):
    world = small.world(**ROOMY)
    async with served(world) as target:
        await small.run(target, in_turn=True)
    assert [event for event, _ in groupby(world.events)] == ["trained", "answered", "graded"]


async def test_both_ways_give_the_same(small, tmp_path_factory):
    other = SmallStudy(tmp_path_factory.mktemp("other"))
    other.edit(*GRID)
    async with served(small.world()) as target:
        await small.run(target)
    async with served(other.world()) as target:
        await other.run(target, in_turn=True)
    kept = [
        {key: row for key, row in study.rows().items() if row[0] != "pool"}
        for study in (small, other)
    ]
    assert kept[0] == kept[1]


async def test_one_stream_of_answers_fills_the_batch_to_the_end(small):
    # Nine cells of twelve questions, and five of the reader's check.
    world = small.world(batch=16, wait_for=9 * 12 + 5, **ROOMY)
    async with served(world) as target:
        await small.run(target, in_turn=True)
    assert world.calls["GenerateBatch"] == world.wait_for
    assert world.streams["GenerateBatch"] == 1


async def test_prompts_and_grades_that_begin_alike_stand_together(small):
    world = small.world(**ROOMY)
    async with served(world) as target:
        await small.run(target, in_turn=True)
    models = [model for model, _ in groupby(model for model, _ in world.asked)]
    assert len(models) == len(set(models)) == 1 + 8
    for _, group in groupby(world.asked, key=lambda asked: asked[0]):
        prompts = [prompt for _, prompt in group]
        assert prompts == sorted(prompts)
    questions = [question for question, _ in world.graded]
    runs = [question for question, _ in groupby(questions)]
    repeated = {question for question, count in Counter(runs).items() if count > 1}
    assert len(runs) > 12
    # Forms of the judge's check come after the grades, about other questions or the same.
    assert len(runs) - len(set(runs)) <= 6, repeated


async def test_adapters_are_taken_out_when_there_are_more_than_the_engine_holds(small):
    world = small.world()
    async with served(world) as target:
        await small.run(target)
    assert world.adapters == set()
    assert world.most_adapters == 1


async def test_few_adapters_stay_loaded(tmp_path):
    small = SmallStudy(tmp_path)
    small.file.write_text(small.file.read_text() + "costs: {timed: 0}\n")
    world = small.world(**ROOMY)
    async with served(world) as target:
        await small.run(target)
    assert len(world.adapters) == 2


async def test_a_larger_study_in_the_same_folder_does_only_what_the_smaller_one_lacks(small):
    world = small.world(**ROOMY)
    async with served(world) as target:
        await small.run(target)
        before = Counter(world.calls)
        small.edit("study: small", "study: larger")
        small.edit("sizes: [4, 8]", "sizes: [4, 8, 12]")
        results = await small.run(target)
    assert not any(answer.error for answer in results.answers)
    assert world.calls["CreateRun"] - before["CreateRun"] == 2 * 2
    assert world.calls["SearchBatch"] - before["SearchBatch"] <= 2 * 4
    assert max(world.prompts.values()) == 1
    assert max(world.grades.values()) == 1


async def test_arms_of_equal_content_share_a_training_whatever_their_names(tmp_path):
    small = SmallStudy(tmp_path)
    small.edit(
        "  - {name: closed,",
        "  - {name: again, tune: {references: short}}\n  - {name: closed,",
    )
    world = small.world(**ROOMY)
    async with served(world) as target:
        results = await small.run(target)
        small.edit("study: small", "study: renamed")
        small.edit("name: closed", "name: by-heart")
        later = await small.run(target)
    assert world.calls["CreateRun"] == 2
    for found in (results, later):
        refs = [cell.training.adapter_ref for cell in found.compared]
        assert refs[0] == refs[1] != refs[2]
        assert len(found.answers) == 4 * 12
        assert not any(answer.error for answer in found.answers)
    assert max(world.prompts.values()) == 1


async def test_a_run_that_was_begun_under_another_name_is_taken(tmp_path):
    small = SmallStudy(tmp_path)
    world = small.world(**ROOMY)
    async with served(world) as target:
        await small.run(target)
        (small.state / "study.sqlite").unlink()
        small.edit("name: short", "name: brief")
        results = await small.run(target)
    assert not any(answer.error for answer in results.answers)
    assert world.calls["CreateRun"] == 2


async def test_counts_are_those_of_the_state_whatever_failed(small):
    world = small.world(failing_runs={"short-4-s1"}, **ROOMY)
    async with served(world) as target:
        await small.run(target)
        assert last_counts(small) == counted_anew(small)
        world.failing_runs = set()
        await small.run(target)
        assert last_counts(small) == counted_anew(small)
    assert last_counts(small)["answers"] == 9 * 12
