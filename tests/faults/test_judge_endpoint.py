"""A thousand grades over an endpoint that fails in every way, by a judge that is killed meanwhile:
each is graded once, none is lost, and every score is the right one."""

from __future__ import annotations

import asyncio
import importlib
import random
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tuneproof.sdk import GradeInput, JudgeClient
from tuneproof.servicekit.errors import TuneproofError
from tuneproof.study.state.store import Count, Task, open_state, task
from tuneproof.study.steps.tally import Tally
from tuneproof.study.steps.work import Lane

from ..conftest import ROOT
from .judge_process import JudgeProcess

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

COUNT = 1000
KILLED_AT = (200, 600)
"""Grades that are there when the judge is killed."""


class Silent:
    """A study's progress that nobody watches."""

    @contextmanager
    def stage(self, name: str, total: int, done: int):
        yield self

    def advance(self, count: int = 1) -> None: ...

    def note(self, text: str) -> None: ...


async def inputs_of(tasks: AsyncIterator[Task]) -> AsyncIterator[tuple[str, GradeInput]]:
    async for one in tasks:
        text = f"{one.inputs['n']} dBm"
        yield one.key, GradeInput("Q", text, ("R",), (), ("accuracy@1",), repeats=3)


def right(number: int) -> int:
    return 1 + number % 5


async def test_each_is_graded_once_and_none_is_lost(tmp_path: Path) -> None:
    sys.path.append(str(ROOT))  # The judge's fake is named from there.
    fakes = importlib.import_module("services.judge.tests.conftest")
    draw = random.Random(7)
    failed: Counter[str] = Counter()

    async def answer(asked):
        fault = draw.choices(["429", "500", "hang", "half", "reset", ""], [8, 4, 1, 4, 4, 79])[0]
        failed[fault] += 1
        said = asked.prompt.split("begins -----\n> ", 1)[1].split(" ", 1)[0]
        form = f"Reasons: compared.\nScore: {right(int(said))}"
        reply = fakes.says(form, choices=asked.body.get("n", 1))
        if fault == "429":
            return fakes.fails(429, retry_after="0.2")
        if fault == "500":
            return fakes.fails(500)
        if fault == "hang":
            await asyncio.sleep(30)
        cut = {"half": len(reply.body) // 2, "reset": 0}.get(fault)
        return fakes.Reply(body=reply.body, cut_after=cut) if cut is not None else reply

    async with fakes.FakeEndpoint().running() as endpoint:
        endpoint.script = answer
        flags = "--request-timeout", "1", "--max-attempts", "10"
        judge = JudgeProcess(endpoint.url, tmp_path / "log", *flags)
        try:
            kept, streams = await graded(judge, tmp_path)
        finally:
            judge.kill()
    assert kept == {number: right(number) for number in range(COUNT)}
    assert streams > len(KILLED_AT)
    assert min(failed[fault] for fault in ("429", "500", "hang", "half", "reset")) > 0


async def graded(judge: JudgeProcess, folder: Path) -> tuple[dict[int, float], int]:
    """The scores by number, and how many streams it took. Kills the judge on the way."""
    kept: dict[int, float] = {}
    kills, streams = list(KILLED_AT), 0

    async def ask(tasks: AsyncIterator[Task]) -> AsyncGenerator[tuple, None]:
        nonlocal streams
        streams += 1

        async with JudgeClient(judge.target) as client:
            async for key, outcome in client.grade_many(inputs_of(tasks), in_flight=32):
                if isinstance(outcome, TuneproofError):
                    yield key, outcome
                    continue
                yield key, {"score": outcome.criteria["accuracy"].mean}
                if kills and len(kept) >= kills[0]:
                    del kills[0]
                    judge.kill()

    async def back() -> None:
        judge.kill()
        judge.start()
        await judge.answers()

    def ended(one: Task, output: dict | None) -> None:
        assert one.inputs["n"] not in kept, "it was graded twice"
        assert output is not None, "it was lost"
        kept[one.inputs["n"]] = output["score"]

    tasks = [task("grade", {"n": number}) for number in range(COUNT)]
    with open_state(folder / "state", write=True) as state:
        tally = Tally(Count("s", "grades", 0, COUNT, 0), Silent())
        lane = Lane(ask, state, recover=back, ended=ended)
        for each in tasks:
            lane.add(each, tally)
        lane.close()
        await back()
        await lane.run()
        assert not state.missing(tasks)
    return kept, streams
