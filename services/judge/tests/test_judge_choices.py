"""All repeats by one request, where the endpoint can."""

import asyncio
import json
from collections.abc import Callable

import pytest

from tuneproof.rubrics import RubricShelf
from tuneproof.servicekit.errors import WrongState
from tuneproof_judge.cache import Cache, CachedEndpoint
from tuneproof_judge.choices import ChoicesEndpoint
from tuneproof_judge.endpoint import OpenAIEndpoint
from tuneproof_judge.grade import FailureKind, Grade
from tuneproof_judge.grading import Grader
from tuneproof_judge.prompt import Subject
from tuneproof_judge.task import GradeTask

pytestmark = pytest.mark.timeout(60)

Make = Callable[..., OpenAIEndpoint]
SHELF = RubricShelf.load()
SUBJECT = Subject("Which power?", "46 dBm.", ("It is 46 dBm.",))


async def graded(endpoint: object, **more: object) -> Grade:
    task = GradeTask(SUBJECT, ("accuracy@1",), **more)  # type: ignore[arg-type]
    return await Grader(SHELF, endpoint).grade(task)  # type: ignore[arg-type]


@pytest.fixture
def choices(fake, reply):
    """A script as vLLM answers: a choice for each, whose seeds follow each other."""

    def answers(asked, text=lambda seed: f"Reasons: so.\nScore: {1 + seed % 5}", most=128):
        count = min(asked.body.get("n", 1), most)
        texts = [text(asked.body["seed"] + index) for index in range(count)]
        body = json.loads(reply.says(texts[0]).body)
        # In no order: the index tells which is which.
        body["choices"] = [
            {"index": index, "finish_reason": "stop", "message": {"content": texts[index]}}
            for index in reversed(range(count))
        ]
        body["usage"]["completion_tokens"] *= count
        return reply.Reply(body=json.dumps(body).encode())

    fake.script = answers
    return answers


def scores(grade: Grade) -> list[object]:
    return [each.outcome for each in grade.criteria[0].repeats]


def asked(fake) -> list[int]:
    """How many choices each request wanted."""
    return [each.body.get("n", 1) for each in fake.asked]


async def test_one_request_reads_the_prompt_once(fake, endpoint_of: Make, choices) -> None:
    alone = await graded(endpoint_of(), repeats=10)
    assert asked(fake) == [1] * 10
    fake.asked.clear()
    found = await graded(ChoicesEndpoint(endpoint_of(), 10), repeats=10)
    assert asked(fake) == [10]
    assert scores(found) == scores(alone)
    assert [each.seed for each in found.criteria[0].repeats] == [
        each.seed for each in alone.criteria[0].repeats
    ]
    assert alone.usage.prompt_tokens == 10 * found.usage.prompt_tokens
    assert alone.usage.completion_tokens == found.usage.completion_tokens
    assert (alone.usage.requests, found.usage.requests) == (10, 1)


@pytest.mark.parametrize(("most", "requests"), [(10, [10, 10, 5]), (1, [1] * 25), (25, [25])])
async def test_a_request_has_a_limit(
    fake, endpoint_of: Make, choices, most: int, requests: list[int]
) -> None:
    grade = await graded(ChoicesEndpoint(endpoint_of(concurrency=1), most), repeats=25)
    assert asked(fake) == requests
    assert grade.criteria[0].scored_repeats == 25


async def test_temperature_0_asks_for_each(fake, endpoint_of: Make, choices) -> None:
    await graded(ChoicesEndpoint(endpoint_of(), 10), repeats=3, temperature=0.0)
    assert asked(fake) == [1] * 3


@pytest.mark.parametrize("given", [1, 4])
async def test_fewer_choices_than_asked_are_made_up_for(
    fake, endpoint_of: Make, choices, given: int
) -> None:
    fake.script = lambda request: choices(request, most=given)
    endpoint = ChoicesEndpoint(endpoint_of(), 10)
    grade = await graded(endpoint, repeats=10)
    assert asked(fake) == [10] + [1] * (10 - given)
    assert grade.criteria[0].scored_repeats == 10
    assert grade.usage.requests == len(fake.asked)
    fake.asked.clear()
    assert (await graded(endpoint, repeats=3)).criteria[0].scored_repeats == 3
    assert asked(fake) == [1] * 3


async def test_a_refusal_is_learnt(fake, endpoint_of: Make, choices, reply) -> None:
    refusal = reply.fails(400, "'n' : number must be at most 1")
    fake.script = lambda request: refusal if "n" in request.body else choices(request)
    endpoint = ChoicesEndpoint(endpoint_of(), 10)
    grade = await graded(endpoint, repeats=5)
    assert asked(fake) == [5] + [1] * 5
    assert grade.criteria[0].scored_repeats == 5
    assert grade.usage.requests == 6
    await graded(endpoint, repeats=2)
    assert asked(fake)[6:] == [1, 1]


async def test_copies_are_no_repeats(fake, endpoint_of: Make, choices) -> None:
    fake.script = lambda request: choices(
        request, lambda _: f"Reasons: so.\nScore: {1 + request.body['seed'] % 5}"
    )
    endpoint = ChoicesEndpoint(endpoint_of(), 10)
    grade = await graded(endpoint, repeats=5)
    assert asked(fake) == [5] + [1] * 4
    assert set(scores(grade)) == {1, 2, 3, 4, 5}
    assert grade.usage.requests == 5


async def test_a_judge_may_be_sure(fake, endpoint_of: Make, choices) -> None:
    fake.script = lambda request: choices(request, lambda _: "Reasons: so.\nScore: 4")
    endpoint = ChoicesEndpoint(endpoint_of(), 10)
    grades = [await graded(endpoint, repeats=4) for _ in range(5)]
    assert asked(fake) == [4, 1] * 3 + [4] * 2
    assert [each.usage.requests for each in grades] == [2, 2, 2, 1, 1]


async def test_a_refused_prompt_says_nothing_of_choices(
    fake, endpoint_of: Make, choices, reply
) -> None:
    fake.script = lambda _: reply.fails(400, "the prompt is too long")
    endpoint = ChoicesEndpoint(endpoint_of(), 10)
    grade = await graded(endpoint, repeats=4)
    assert grade.criteria[0].failures == {FailureKind.ENDPOINT: 4}
    assert asked(fake) == [4, 1]
    assert grade.usage.requests == 2
    fake.asked.clear()
    fake.script = choices
    assert (await graded(endpoint, repeats=4)).criteria[0].scored_repeats == 4
    assert asked(fake) == [4]


async def test_what_passes_is_asked_again_as_a_whole(
    fake, endpoint_of: Make, choices, reply
) -> None:
    fake.script = lambda request: reply.fails(503) if len(fake.asked) == 1 else choices(request)
    grade = await graded(ChoicesEndpoint(endpoint_of(), 10), repeats=4)
    assert asked(fake) == [4, 4]
    assert grade.criteria[0].scored_repeats == 4
    assert grade.usage.requests == 2


async def test_a_failure_costs_each_repeat(fake, endpoint_of: Make, reply) -> None:
    fake.script = lambda _: reply.fails(500)
    grade = await graded(ChoicesEndpoint(endpoint_of(attempts=3), 10), repeats=4)
    assert grade.criteria[0].failures == {FailureKind.ENDPOINT: 4}
    assert grade.usage.requests == len(fake.asked) == 3


async def test_a_bad_choice_costs_itself(fake, endpoint_of: Make, choices) -> None:
    first = (await graded(endpoint_of(), repeats=4)).criteria[0].repeats[1].seed
    fake.asked.clear()
    fake.script = lambda request: choices(
        request, lambda seed: "no form" if seed == first else "Reasons: so.\nScore: 4"
    )
    endpoint = ChoicesEndpoint(endpoint_of(), 10)
    grade = await graded(endpoint, repeats=4)
    assert grade.criteria[0].scored_repeats == 3
    grade = await graded(endpoint, repeats=4, retries=1)
    assert grade.criteria[0].scored_repeats == 4
    assert asked(fake) == [4, 4, 1]


async def test_a_broken_set_up_is_told(fake, endpoint_of: Make, reply) -> None:
    fake.script = lambda _: reply.fails(401)
    with pytest.raises(WrongState, match="does not accept the key"):
        await graded(ChoicesEndpoint(endpoint_of(), 10), repeats=4)


async def test_who_goes_away_ends_the_request(fake, endpoint_of: Make) -> None:
    hanging = asyncio.Event()

    async def hangs(_):
        hanging.set()
        await asyncio.sleep(60)

    fake.script = hangs
    endpoint = ChoicesEndpoint(endpoint_of(), 10)
    grading = asyncio.create_task(graded(endpoint, repeats=4))
    await hanging.wait()
    grading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await grading
    while not fake.left_early:
        await asyncio.sleep(0.01)
    assert asked(fake) == [4]


async def test_who_comes_after_one_who_left_at_once_is_answered(
    fake, endpoint_of: Make, choices
) -> None:
    endpoint = ChoicesEndpoint(endpoint_of(), 10)
    for steps in range(8):
        leaving = asyncio.create_task(graded(endpoint, repeats=4))
        for _ in range(steps):
            await asyncio.sleep(0)
        leaving.cancel()
        grade = await graded(endpoint, repeats=4)
        assert grade.criteria[0].scored_repeats == 4
        assert leaving.cancelled()


async def test_a_cache_asks_for_the_others(fake, endpoint_of: Make, choices, tmp_path) -> None:
    cache = Cache(tmp_path / "cache.sqlite")
    endpoint = CachedEndpoint(ChoicesEndpoint(endpoint_of(), 10), cache)
    few = await graded(endpoint, repeats=4)
    many = await graded(endpoint, repeats=10)
    assert asked(fake) == [4, 6]
    assert scores(many)[:4] == scores(few)
    assert scores(await graded(endpoint, repeats=10)) == scores(many)
    assert asked(fake) == [4, 6]
    cache.close()
