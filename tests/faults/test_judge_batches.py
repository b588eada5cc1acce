"""A judge that is killed while it makes a batch: nothing is paid for twice, nothing is lost."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tuneproof.results import Grade
from tuneproof.sdk import BATCH_PENDING, GradeInput, JudgeClient

from ..conftest import ROOT
from .judge_process import JudgeProcess

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

sys.path.append(str(ROOT))  # The judge's fake is named from there.
batches = importlib.import_module("services.judge.tests.batch_api")
COUNT, REPEATS = 20, 3


def right(number: int) -> int:
    return 1 + number % 5


def says(body: dict) -> tuple:
    number = int(body["messages"][0]["content"].split("> number ", 1)[1].split("\n")[0])
    return batches.says(f"Reasons: read.\nScore: {right(number)}")


def judge_on(url: str, folder: Path) -> JudgeProcess:
    flags = "--cache", str(folder / "cache.sqlite"), "--batch", "--batch-poll", "0.2"
    return JudgeProcess(url, folder / "log", *flags)


async def grades_by(judge: JudgeProcess) -> dict[int, Grade]:
    """Asks for all; those that are there."""
    inputs = {
        str(n): GradeInput("Q", f"number {n}", ("R",), rubrics=("accuracy@1",), repeats=REPEATS)
        for n in range(COUNT)
    }
    found = {}
    await judge.answers()
    async with JudgeClient(judge.target) as client:
        async for name, outcome in client.grade_many(inputs, in_flight=COUNT):
            if isinstance(outcome, Grade):
                found[int(name)] = outcome
            else:
                assert outcome.reason == BATCH_PENDING
    return found


async def until(holds: Callable[[], object]) -> None:
    while not holds():
        await asyncio.sleep(0.05)


async def test_each_request_is_paid_for_once(tmp_path: Path) -> None:
    async with batches.batch_api() as api:
        api.script, api.pause = says, 0.5
        # It is killed when its batch is not made yet, and again when it may not know it.
        for reached in (lambda: api.making, lambda: api.batches):
            judge = judge_on(api.url, tmp_path)
            try:
                assert await grades_by(judge) == {}
                await until(reached)
            finally:
                judge.kill()
        judge = judge_on(api.url, tmp_path)
        try:
            api.end("batch-0")
            found: dict[int, Grade] = {}
            while len(found) < COUNT:
                found = await grades_by(judge)
                await asyncio.sleep(0.1)
        finally:
            judge.kill()
    means = {n: grade.criteria["accuracy"].mean for n, grade in found.items()}
    assert means == {n: right(n) for n in range(COUNT)}
    assert set(api.paid.values()) == {1}
    assert (list(api.batches), len(api.direct)) == (["batch-0"], 1)
    assert api.paid.total() == COUNT * REPEATS - 1
