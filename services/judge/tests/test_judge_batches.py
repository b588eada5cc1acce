"""Grades by the endpoint's batch API: none is paid for twice, whatever ends in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from batch_api import Answer, BatchApi, batch_api, refuses, says

from tuneproof.judge.v1 import judge_pb2 as pb
from tuneproof.judge.v1.judge_pb2_grpc import JudgeServiceStub
from tuneproof.rubrics import RubricShelf
from tuneproof.servicekit.client import connect
from tuneproof.servicekit.errors import Unavailable
from tuneproof.servicekit.status import error_of
from tuneproof.servicekit.testing import serving
from tuneproof_judge.batch.asking import BatchedEndpoint
from tuneproof_judge.batch.queue import Queue
from tuneproof_judge.batch.running import Batches
from tuneproof_judge.cache import Cache
from tuneproof_judge.drafting import StepsTask
from tuneproof_judge.endpoint import EndpointLimits, OpenAIEndpoint
from tuneproof_judge.grade import CriterionGrade, FailureKind, Usage
from tuneproof_judge.grading import Grader
from tuneproof_judge.main import build
from tuneproof_judge.prompt import Subject
from tuneproof_judge.replies import Completion
from tuneproof_judge.settings import JudgeSettings
from tuneproof_judge.task import GradeTask

pytestmark = [pytest.mark.long, pytest.mark.timeout(90)]

SERVICES = [pb.DESCRIPTOR.services_by_name["JudgeService"]]
SUBJECT = Subject("Which power?", "46 dBm.", ("It is 46 dBm.",))


@pytest.fixture
async def api() -> AsyncIterator[BatchApi]:
    async with batch_api() as found:
        yield found


class Judge:
    """A judge's parts on a file, as `batched` puts them together; its time goes by `step`."""

    def __init__(self, api: BatchApi, path: Path, attempts: int = 3) -> None:
        limits = EndpointLimits(16, 5.0, 1)
        self.endpoint = OpenAIEndpoint(api.url, "fake", "key", limits)
        self.cache = Cache(path)
        self.queue = Queue(path, "fake", attempts)
        self.batches = Batches(self.endpoint, self.queue, path.with_suffix(".lock"), 1.0)
        self.grader = Grader(
            RubricShelf.load(), BatchedEndpoint(self.endpoint, self.cache, self.queue)
        )

    async def grade(self, **more: Any) -> CriterionGrade:
        task = GradeTask(SUBJECT, ("accuracy@1",), **{"repeats": 5, **more})
        (found,) = (await self.grader.grade(task)).criteria
        assert isinstance(found, CriterionGrade)
        return found

    async def waits(self, **more: Any) -> str:
        """Asks, and hands in what is queued; what the caller was told."""
        with pytest.raises(Unavailable) as caught:
            await self.grade(**more)
        assert caught.value.reason == "BATCH_PENDING"
        await self.batches.step()
        await self.batches.step()
        return caught.value.message

    async def end(self) -> None:
        """As a kill: nothing is written any more."""
        self.batches.close()
        self.queue.close()
        self.cache.close()
        await self.endpoint.close()


@pytest.fixture
async def judge_on(api: BatchApi, tmp_path: Path) -> AsyncIterator[Callable[..., Judge]]:
    made: list[Judge] = []

    def make(**more: Any) -> Judge:
        made.append(Judge(api, tmp_path / "cache.sqlite", **more))
        return made[-1]

    yield make
    for each in made:
        await each.end()


async def test_a_grade_comes_with_its_batch_and_is_paid_for_once(api, judge_on) -> None:
    judge = judge_on()
    told = await judge.waits()
    assert f"5 of 5 requests wait for a batch of {api.url}" in told
    # One is asked directly, so that what the endpoint refuses is known before the batch.
    assert len(api.direct) == 1
    assert len(api.lines("batch-0")) == 4
    assert {line["body"]["model"] for line in api.lines("batch-0")} == {"fake"}
    assert all(len(line["custom_id"]) <= 64 for line in api.lines("batch-0"))
    await judge.waits()
    api.end("batch-0")
    await judge.batches.step()
    grade = await judge.grade()
    assert (grade.mean, grade.scored_repeats) == (4.0, 5)
    assert list(api.batches) == ["batch-0"]
    assert set(api.paid.values()) == {1}


async def test_what_comes_while_it_is_asked_for_is_not_paid_for_again(
    api, judge_on, monkeypatch
) -> None:
    judge = judge_on()
    look = judge.queue.result

    def comes(key: str) -> Any:
        monkeypatch.setattr(judge.queue, "result", look)
        judge.queue.arrive({key: Completion("Score: 4", "stop", "", Usage())})
        return look(key)

    monkeypatch.setattr(judge.queue, "result", comes)
    with pytest.raises(Unavailable):
        await judge.grade(repeats=1)
    assert judge.queue.counts() == (0, 0)
    assert (await judge.grade(repeats=1)).mean == 4.0


async def test_steps_are_drafted_by_a_batch_too(api, judge_on) -> None:
    judge = judge_on()
    asked = StepsTask("tone", "Polite?", {1: "no", 2: "yes"})
    with pytest.raises(Unavailable, match="1 of 1 requests wait for a batch"):
        await judge.grader.draft(asked)
    api.script = lambda _: says("1. Read it.\n2. Choose.")
    await judge.batches.step()
    await judge.batches.step()  # One request alone is asked directly.
    assert (await judge.grader.draft(asked)).steps == ("Read it.", "Choose.")


async def test_all_that_is_queued_goes_into_one_batch_once_no_more_comes(api, judge_on) -> None:
    judge = judge_on()
    for seed in range(4):
        with pytest.raises(Unavailable):
            await judge.grade(seed=seed)
        await judge.batches.step()
        assert api.batches == {}
    await judge.batches.step()
    assert len(api.lines("batch-0")) == 4 * 5 - 1
    assert judge.queue.counts() == (0, 19)


async def test_a_judge_that_was_killed_goes_on_with_its_batch(api, judge_on) -> None:
    first = judge_on()
    await first.waits()
    await first.end()
    api.end("batch-0")
    second = judge_on()
    await second.batches.step()
    assert (await second.grade()).mean == 4.0
    assert (list(api.batches), len(api.direct)) == (["batch-0"], 1)


@pytest.mark.parametrize("made", [True, False])
async def test_killed_before_it_knew_its_batch_it_finds_it_or_begins_anew(
    api, judge_on, made
) -> None:
    first = judge_on()
    api.lose_answers, api.refuse_batches = made, None if made else (503, "overloaded")
    with pytest.raises(Unavailable):
        await first.grade()
    await first.batches.step()
    with pytest.raises(openai.APIError):
        await first.batches.step()
    await first.end()
    api.lose_answers, api.refuse_batches = False, None
    second = judge_on()
    await second.waits()
    assert list(api.batches) == ["batch-0"]
    api.end("batch-0")
    await second.batches.step()
    assert (await second.grade()).mean == 4.0
    assert set(api.paid.values()) == {1}


async def test_what_expired_is_asked_again_and_what_came_is_not(api, judge_on) -> None:
    judge = judge_on()
    await judge.waits()
    api.end("batch-0", "expired", answered=3)
    await judge.batches.step()
    # A part of the repeats is no grade.
    assert "1 of 5 requests wait" in await judge.waits()
    assert len(api.lines("batch-1")) == 1
    api.end("batch-1")
    await judge.batches.step()
    assert (await judge.grade()).scored_repeats == 5
    assert set(api.paid.values()) == {1}


async def test_failed_requests_of_a_batch_go_into_the_next(api, judge_on) -> None:
    judge = judge_on()
    await judge.waits()
    api.script = lambda _: refuses(429, "rate limit")
    api.end("batch-0")
    await judge.batches.step()
    api.script = lambda _: says("Score: 2")
    await judge.waits()
    api.end("batch-1")
    await judge.batches.step()
    assert sorted((await judge.grade()).scores) == [2, 2, 2, 2, 4]


async def test_what_fails_again_and_again_is_a_lost_repeat_until_a_judge_starts_anew(
    api, judge_on
) -> None:
    judge = judge_on(attempts=2)
    await judge.waits()
    for batch in ("batch-0", "batch-1"):
        api.batches[batch] |= {
            "status": "failed",
            "errors": {"data": [{"message": "token limit reached", "code": "token_limit"}]},
        }
        await judge.batches.step()
        await judge.batches.step()
    grade = await judge.grade()
    assert (grade.mean, grade.failures) == (None, {FailureKind.ENDPOINT: 4})
    failed = next(each.outcome for each in grade.repeats if each.failures)
    assert "the batch batch-1 is failed: token limit reached" in failed.detail
    assert (await judge.grade()).mean is None
    assert "4 of 5 requests wait" in await judge_on().waits()


async def test_a_cancelled_batch_is_not_handed_in_again(api, judge_on) -> None:
    judge = judge_on()
    await judge.waits()
    api.batches["batch-0"]["status"] = "cancelled"
    await judge.batches.step()
    await judge.batches.step()
    assert (await judge.grade()).lost_repeats == 4
    assert len(api.batches) == 1


async def test_what_the_endpoint_refuses_is_learnt_before_the_first_batch(api, judge_on) -> None:
    def picky(body: dict[str, Any]) -> Answer:
        for name in ("temperature", "seed"):
            if name in body:
                return refuses(400, f"Unsupported parameter: '{name}'", "unsupported_parameter")
        return says("Score: 3")

    api.script = picky
    judge = judge_on()
    await judge.waits()
    assert len(api.direct) == 3
    assert not {"temperature", "seed"} & api.lines("batch-0")[0]["body"].keys()
    api.end("batch-0")
    await judge.batches.step()
    grade = await judge.grade()
    assert (grade.mean, grade.refused_parameters) == (3.0, ["seed", "temperature"])


async def test_a_refusal_in_a_batch_is_told_and_another_seed_asked(api, judge_on) -> None:
    judge = judge_on()
    await judge.waits(retries=1)
    api.script = lambda _: says("", finish="content_filter")
    api.end("batch-0")
    await judge.batches.step()
    await judge.waits(retries=1)
    assert len(api.lines("batch-1")) == 4
    api.script = lambda _: says("Score: 5")
    api.end("batch-1")
    await judge.batches.step()
    grade = await judge.grade(retries=1)
    assert sorted(grade.scores) == [4, 5, 5, 5, 5]
    assert grade.failures == {FailureKind.REFUSED: 4}


async def test_only_one_judge_of_a_file_hands_in(api, judge_on) -> None:
    first, second = judge_on(), judge_on()
    for judge in (first, second):
        judge.batches._poll = 0.01
    with pytest.raises(Unavailable):
        await first.grade()
    with pytest.raises(Unavailable):
        await second.grade(seed=9)
    running = [asyncio.create_task(each.batches.run()) for each in (first, second)]
    while first.queue.counts() != (0, 9):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    for each in running:
        each.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert (len(api.batches), len(api.direct)) == (1, 1)


async def test_callers_are_told_why_no_batch_is_taken(api, judge_on) -> None:
    judge = judge_on()
    judge.batches._poll = 0.01
    api.refuse_batches = (403, "no batches for this key")
    running = asyncio.create_task(judge.batches.run())
    message = ""
    while "no batches for this key" not in message:
        with pytest.raises(Unavailable) as caught:
            await judge.grade()
        message = caught.value.message
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert api.batches == {}


async def test_the_service_answers_by_batches(api, tmp_path: Path) -> None:
    settings = JudgeSettings(
        endpoint_url=api.url, endpoint_model="fake", cache=tmp_path / "c.sqlite", batch=True,
        batch_poll=0.02,
    )  # fmt: skip
    given = {"question": "Q", "references": ["R"], "rubrics": ["accuracy@1"], "repeats": 3}
    request = pb.GradeBatchRequest(id="1", grade=pb.GradeRequest(**given))

    async def ask(stub: JudgeServiceStub) -> pb.GradeBatchResponse:
        async def items() -> AsyncIterator[pb.GradeBatchRequest]:
            yield request

        (found,) = [each async for each in stub.GradeBatch(items())]
        return found

    async with (
        build(settings) as service,
        serving(service) as target,
        connect(target, services=SERVICES) as channel,
    ):
        stub = JudgeServiceStub(channel)
        error = error_of((await ask(stub)).error)
        assert (type(error), error.reason) == (Unavailable, "BATCH_PENDING")
        while not api.batches:
            await asyncio.sleep(0.02)
        api.end("batch-0")
        while (found := await ask(stub)).HasField("error"):
            await asyncio.sleep(0.02)
    assert found.result.criteria[0].mean == 4
