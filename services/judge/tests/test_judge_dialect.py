"""What an endpoint refuses is learnt, and it gets as many requests at once as it bears."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tuneproof.judge.v1 import judge_pb2 as pb
from tuneproof.judge.v1.judge_pb2_grpc import JudgeServiceStub
from tuneproof.rubrics import RubricShelf
from tuneproof.servicekit.client import connect
from tuneproof_judge.cache import Cache, CachedEndpoint
from tuneproof_judge.endpoint import OpenAIEndpoint
from tuneproof_judge.grade import FailureKind
from tuneproof_judge.grading import Grader
from tuneproof_judge.pacing import Pace
from tuneproof_judge.prompt import Subject
from tuneproof_judge.replies import CallFailed
from tuneproof_judge.task import GradeTask

pytestmark = pytest.mark.timeout(30)

Make = Callable[..., OpenAIEndpoint]
SERVICES = [pb.DESCRIPTOR.services_by_name["JudgeService"]]


async def ask(endpoint: OpenAIEndpoint, **more):
    given = {"seed": 7, "temperature": 1.0, "max_tokens": 400, "deadline": None, **more}
    return await endpoint.complete("Judge this.", **given)


def picky(reply, refusals):
    """A script that refuses parameters, one at a time, as real endpoints word it."""

    def script(asked):
        for name, (status, message, code) in refusals.items():
            if name in asked.body:
                return reply.fails(status, message, code)
        return reply.says("Score: 3")

    return script


OPENAI = {
    "max_tokens": (
        400,
        "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "unsupported_parameter",
    ),
    "temperature": (
        400,
        "'temperature' does not support 0.7 with this model. Only the default (1) is supported.",
        "unsupported_value",
    ),
    "top_p": (400, "Unsupported parameter: 'top_p'", "unsupported_parameter"),
    "seed": (422, '[{"loc":["body","seed"],"msg":"Extra inputs are not permitted"}]', None),
}


async def test_a_reasoning_models_refusals_are_learnt_once(fake, endpoint_of: Make, reply) -> None:
    fake.script = picky(reply, OPENAI)
    endpoint = endpoint_of()
    first = await ask(endpoint)
    assert (first.text, first.usage.requests) == ("Score: 3", 5)
    second = await ask(endpoint)
    assert second.usage.requests == 1
    body = fake.asked[-1].body
    assert body["max_completion_tokens"] == 400
    assert not {"max_tokens", "temperature", "top_p", "seed"} & body.keys()


async def test_a_grade_tells_what_the_endpoint_refuses(
    fake, endpoint_of: Make, reply, tmp_path: Path
) -> None:
    fake.script = picky(reply, OPENAI)
    cache = Cache(tmp_path / "cache.sqlite")
    grader = Grader(RubricShelf.load(), CachedEndpoint(endpoint_of(), cache))
    task = GradeTask(Subject("Q", "A", ("R",)), ("accuracy@1",), repeats=2)
    (first,) = (await grader.grade(task)).criteria
    assert first.refused_parameters == ["max_tokens", "seed", "temperature", "top_p"]
    # A judge that starts again has learnt nothing, and tells what its cache knows.
    later = Grader(RubricShelf.load(), CachedEndpoint(endpoint_of(), cache))
    (again,) = (await later.grade(task)).criteria
    assert (again.refused_parameters, again.mean) == (first.refused_parameters, 3)
    cache.close()


async def test_the_reply_tells_what_the_endpoint_refuses(fake, judge, reply) -> None:
    fake.script = picky(reply, {"seed": OPENAI["seed"]})
    async with judge() as target, connect(target, services=SERVICES) as channel:
        stub = JudgeServiceStub(channel)
        given = {"question": "Q", "references": ["R"], "rubrics": ["accuracy@1"], "repeats": 1}
        (graded,) = (await stub.Grade(pb.GradeRequest(**given))).grade.criteria
        fake.script = lambda _: reply.says("Better: tie")
        (compared,) = (await stub.Compare(pb.CompareRequest(**given))).comparison.criteria
    assert list(graded.refused_parameters) == list(compared.refused_parameters) == ["seed"]


async def test_many_first_requests_all_get_through(fake, endpoint_of: Make, reply) -> None:
    fake.script = picky(reply, OPENAI)
    endpoint = endpoint_of()
    found = await asyncio.gather(*(ask(endpoint) for _ in range(30)))
    assert {each.text for each in found} == {"Score: 3"}


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 512 tokens; max_tokens 400 is too large.",
        "Invalid prompt: your seed words are flagged.",
        "temperature must be a number",
    ],
)
async def test_other_refusals_teach_nothing(fake, endpoint_of: Make, reply, message: str) -> None:
    fake.script = lambda _: reply.fails(400, message)
    with pytest.raises(CallFailed) as caught:
        await ask(endpoint_of())
    assert caught.value.failure.kind is FailureKind.ENDPOINT
    assert len(fake.asked) == 1


async def test_forms_by_schema_until_they_are_refused(fake, endpoint_of: Make, reply) -> None:
    fake.script = lambda _: reply.says(json.dumps({"reasons": "Same.", "score": 4}))
    endpoint = endpoint_of(structured=True)
    grader = Grader(RubricShelf.load(), endpoint)
    task = GradeTask(Subject("Q", "A", ("R",)), ("accuracy@1",), repeats=2)
    (grade,) = (await grader.grade(task)).criteria
    assert grade.mean == 4
    schema = fake.asked[0].body["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]) == ["reasons", "score"]
    assert schema["properties"]["score"]["enum"] == [1, 2, 3, 4, 5]
    refusal = (400, "response_format of type 'json_schema' is not supported", None)
    fake.script = picky(reply, {"response_format": refusal})
    (grade,) = (await grader.grade(task)).criteria
    assert grade.mean == 3
    await ask(endpoint_of())
    assert "response_format" not in fake.asked[-1].body


async def test_an_endpoint_that_answers_429_gets_fewer_at_once(
    fake, endpoint_of: Make, reply
) -> None:
    limit = 4

    async def answer(asked):
        if fake.under_way > limit:
            return reply.fails(429, retry_after="1")
        await asyncio.sleep(0.002)
        return reply.says("Score: 3")

    fake.script = answer
    endpoint = endpoint_of(concurrency=32, attempts=20)
    found = await asyncio.gather(*(ask(endpoint) for _ in range(100)))
    assert all(each.text == "Score: 3" for each in found)
    refused = sum(each.usage.requests - 1 for each in found)
    assert refused < 4 * len(found)  # With 32 at once, seven of eight are.


def test_less_at_once_after_429_and_slowly_more_after_answers() -> None:
    async def scene() -> None:
        pace = Pace(32, "m")
        async with pace.slot() as early, pace.slot() as also_early:
            pace.refused(early)
            assert pace.allowed == 16
            pace.refused(also_early)
            assert pace.allowed == 16
        async with pace.slot() as later:
            pace.refused(later)
        assert pace.allowed == 8
        for _ in range(9):
            pace.answered(later, {})
        assert pace.allowed == 9
        pace.answered(later, {"x-ratelimit-remaining-requests": "3"})
        assert pace.allowed == 3
        for _ in range(2000):
            pace.answered(later, {})
        assert pace.allowed == 32

    asyncio.run(scene())


async def test_a_request_takes_as_many_places_as_completions() -> None:
    pace = Pace(8, "m")
    order: list[str] = []

    async def hold(name: str, size: int, leave: asyncio.Event) -> None:
        async with pace.slot(size):
            order.append(name)
            await leave.wait()

    leave = {name: asyncio.Event() for name in "abcd"}
    work = [
        asyncio.create_task(hold(name, size, leave[name]))
        for name, size in (("a", 5), ("b", 4), ("c", 3), ("d", 20))
    ]
    await asyncio.sleep(0)
    assert order == ["a"]  # c would fit, but b was there first.
    leave["a"].set()
    await asyncio.sleep(0.01)
    assert order == ["a", "b", "c"]
    leave["b"].set()
    await asyncio.sleep(0.01)
    assert order == ["a", "b", "c"]
    leave["c"].set()
    await asyncio.sleep(0.01)
    assert order == ["a", "b", "c", "d"]  # More than may be: alone.
    leave["d"].set()
    await asyncio.gather(*work)


async def test_who_gives_up_waiting_holds_no_place() -> None:
    pace = Pace(1, "m")

    async def hold(entered: asyncio.Event, leave: asyncio.Event) -> None:
        async with pace.slot():
            entered.set()
            await leave.wait()

    first, second, leave = asyncio.Event(), asyncio.Event(), asyncio.Event()
    tasks = [asyncio.create_task(hold(each, leave)) for each in (first, second)]
    await first.wait()
    tasks[1].cancel()
    leave.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not second.is_set()
    async with asyncio.timeout(1), pace.slot():
        pass
