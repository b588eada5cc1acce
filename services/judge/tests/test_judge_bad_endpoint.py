"""What a caller of the judge is told of an endpoint that misbehaves, in each of its ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tuneproof.judge.v1 import judge_pb2 as pb
from tuneproof.judge.v1.judge_pb2_grpc import JudgeServiceStub
from tuneproof.servicekit.client import connect
from tuneproof.servicekit.errors import Unavailable, WrongState
from tuneproof.servicekit.status import error_of

pytestmark = pytest.mark.timeout(30)

SERVICES = [pb.DESCRIPTOR.services_by_name["JudgeService"]]


async def criterion_of(target: str) -> pb.CriterionGrade:
    """One item's scores by one rubric, over gRPC; in a batch, which no client repeats."""
    grade = pb.GradeRequest(
        question="What?", references=["A"], answer="A", rubrics=["accuracy@1"], repeats=2
    )

    async def items() -> AsyncIterator[pb.GradeBatchRequest]:
        yield pb.GradeBatchRequest(id="1", grade=grade)

    async with connect(target, services=SERVICES) as channel:
        (item,) = [each async for each in JudgeServiceStub(channel).GradeBatch(items())]
    if item.HasField("error"):
        raise error_of(item.error)
    (criterion,) = item.result.criteria
    return criterion


async def hang(_):
    await asyncio.Event().wait()


def misbehaving(reply, name: str):
    return {
        "500": lambda _: reply.fails(500, "out of memory"),
        "400": lambda _: reply.fails(400, "the prompt has 9000 tokens"),
        "rubbish": lambda _: reply.Reply(body=b"<html>bad gateway</html>"),
        "nothing": lambda _: reply.Reply(body=b""),
        "no choices": lambda _: reply.Reply(body=b'{"choices":[]}'),
        "hangs": hang,
    }[name]


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("500", pb.FAILURE_KIND_ENDPOINT, ["the endpoint answered HTTP 500", "out of memory"]),
        ("400", pb.FAILURE_KIND_ENDPOINT, ["answered HTTP 400", "the prompt has 9000 tokens"]),
        ("rubbish", pb.FAILURE_KIND_ENDPOINT, ["answer is not a chat completion", "JSON"]),
        ("nothing", pb.FAILURE_KIND_ENDPOINT, ["answer is not a chat completion", "JSON"]),
        ("no choices", pb.FAILURE_KIND_ENDPOINT, ["answer is not a chat completion: choices"]),
        ("hangs", pb.FAILURE_KIND_TIMEOUT, ["the endpoint did not answer within 0.2 s"]),
    ],
)
async def test_a_failed_repeat_says_why_and_is_no_score(fake, judge, reply, *, name, kind, told):
    fake.script = misbehaving(reply, name)
    async with judge(request_timeout=0.2 if name == "hangs" else 20) as target:
        criterion = await criterion_of(target)
    assert not criterion.HasField("mean")
    assert criterion.scored_repeats == 0
    for repeat in criterion.repeats:
        assert repeat.failure.kind == kind
        for words in told:
            assert words in repeat.failure.detail
        assert "Traceback" not in repeat.failure.detail


@pytest.mark.parametrize(
    ("error", "headers", "kind", "told"),
    [
        ((429,), {}, Unavailable, ["429", "{url}"]),
        ((429,), {"retry_after": "3600"}, Unavailable, ["429", "{url}"]),
        ((503, "loading"), {}, Unavailable, ["HTTP 503", "loading", "{url}"]),
        ((401, "bad key"), {}, WrongState, ["{url}", "TUNEPROOF_JUDGE_API_KEY"]),
        ((404, "no model"), {}, WrongState, ["{url}", "--endpoint-model"]),
    ],
)
async def test_an_endpoint_that_takes_nothing_on_fails_the_call(
    fake, judge, reply, *, error, headers, kind, told
):
    fake.script = lambda _: reply.fails(*error, **headers)
    async with judge() as target:
        with pytest.raises(kind) as caught:
            await criterion_of(target)
    for words in told:
        assert words.format(url=fake.url) in caught.value.message


async def test_an_endpoint_that_is_down_is_named(judge, closed_url):
    async with judge(endpoint_url=closed_url) as target:
        with pytest.raises(Unavailable) as caught:
            await criterion_of(target)
    assert f"no answer from {closed_url}" in caught.value.message
    assert caught.value.retry_after is not None


async def test_429_is_waited_for_and_then_scored(fake, judge, reply):
    left = [reply.fails(429, retry_after="0"), reply.fails(429, retry_after="0")]
    fake.script = lambda _: left.pop() if left else reply.says("Score: 3")
    async with judge(max_attempts=3) as target:
        criterion = await criterion_of(target)
    assert criterion.scored_repeats == 2
    assert criterion.mean == 3


async def test_an_endpoint_that_closes_half_way_is_named(fake, judge, reply):
    whole = reply.says("Score: 5")
    fake.script = lambda _: reply.Reply(body=whole.body, cut_after=len(whole.body) // 2)
    async with judge() as target:
        with pytest.raises(Unavailable, match="peer closed connection") as caught:
            await criterion_of(target)
    assert fake.url in caught.value.message
    assert "see that it is up" in caught.value.message
