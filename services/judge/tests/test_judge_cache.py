"""The cache: what is kept, by which key, and two processes on one file."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from tuneproof.rubrics import RubricShelf
from tuneproof.servicekit.errors import InvalidInput, WrongState
from tuneproof_judge.cache import Cache, CachedEndpoint
from tuneproof_judge.endpoint import OpenAIEndpoint
from tuneproof_judge.grade import CriterionGrade, FailureKind
from tuneproof_judge.grading import Grader
from tuneproof_judge.prompt import Subject
from tuneproof_judge.replies import Completion
from tuneproof_judge.task import GradeTask

pytestmark = pytest.mark.timeout(60)

Make = Callable[..., OpenAIEndpoint]
SHELF = RubricShelf.load()
SUBJECT = Subject("Which power?", "46 dBm.", ("It is 46 dBm.",))


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    found = Cache(tmp_path / "deep" / "cache.sqlite")
    yield found
    found.close()


async def graded(endpoint, **more: object) -> CriterionGrade:
    given = {"repeats": 3, **more}
    task = GradeTask(SUBJECT, ("accuracy@1",), **given)  # type: ignore[arg-type]
    (criterion,) = (await Grader(SHELF, endpoint).grade(task)).criteria
    assert isinstance(criterion, CriterionGrade)
    return criterion


async def test_what_was_paid_for_is_not_asked_again(
    fake, endpoint_of: Make, reply, cache: Cache
) -> None:
    fake.script = lambda asked: reply.says(f"Score: {1 + asked.body['seed'] % 5}")
    endpoint = CachedEndpoint(endpoint_of(), cache)
    first, again = await graded(endpoint), await graded(endpoint)
    assert len(fake.asked) == 3
    assert [each.outcome for each in again.repeats] == [each.outcome for each in first.repeats]
    assert [each.completion for each in again.repeats] == [
        each.completion for each in first.repeats
    ]
    assert {each.usage.requests for each in again.repeats} == {0}
    assert (endpoint.url, endpoint.model) == (fake.url, "fake")


@pytest.mark.parametrize(
    "other", [{"repeats": 5}, {"seed": 9}, {"temperature": 0.5}, {"mode": "weighted"}]
)
async def test_what_can_change_a_score_is_in_the_key(
    fake, endpoint_of: Make, reply, cache: Cache, other: dict[str, object]
) -> None:
    endpoint = CachedEndpoint(endpoint_of(), cache)
    await graded(endpoint)
    before = len(fake.asked)
    with suppress(WrongState):  # the fake gives no probabilities
        await graded(endpoint, **other)
    assert len(fake.asked) > before


def test_who_still_reads_when_it_is_closed_is_told(tmp_path: Path) -> None:
    def read(cache: Cache) -> None:
        with suppress(sqlite3.ProgrammingError):
            while True:
                cache.get("key")

    for number in range(5):
        cache = Cache(tmp_path / f"{number}.sqlite")
        cache.keep("key", "x" * 10_000)
        readers = [Thread(target=read, args=(cache,)) for _ in range(4)]
        for each in readers:
            each.start()
        cache.close()
        for each in readers:
            each.join(10)
            assert not each.is_alive()


async def test_another_answer_model_or_endpoint_is_another_key(
    fake, endpoint_of: Make, cache: Cache
) -> None:
    async def ask(endpoint: OpenAIEndpoint, prompt: str = "p", limit: int = 9) -> None:
        await CachedEndpoint(endpoint, cache).complete(
            prompt, seed=1, temperature=1.0, max_tokens=limit, deadline=None
        )

    same = endpoint_of()
    for _ in range(2):
        await ask(same)
    assert len(fake.asked) == 1
    await ask(same, "q")
    await ask(same, limit=10)
    await ask(endpoint_of(url=fake.url.replace("127.0.0.1", "localhost")))
    assert len(fake.asked) == 4


async def test_failures_and_refusals_are_not_kept(
    fake, endpoint_of: Make, reply, cache: Cache
) -> None:
    endpoint = CachedEndpoint(endpoint_of(attempts=1), cache)
    for failed in (reply.fails(500), reply.says("", finish="content_filter")):
        fake.script = lambda _, failed=failed: failed
        assert (await graded(endpoint)).mean is None
    fake.script = lambda _: reply.says("Score: 4")
    assert (await graded(endpoint)).mean == 4


async def test_a_cache_that_fails_costs_requests_and_no_grade(
    fake, endpoint_of: Make, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(cache, "keep", broken)
    monkeypatch.setattr(cache, "get", broken)
    endpoint = CachedEndpoint(endpoint_of(), cache)
    assert (await graded(endpoint)).mean == 4
    assert (await graded(endpoint)).mean == 4
    assert len(fake.asked) == 6


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no database, but long enough to be read as one" * 30)
    with pytest.raises(InvalidInput, match=r"notes\.txt cannot be used"):
        Cache(path)


async def test_two_at_once_go_on_with_what_is_kept(tmp_path: Path) -> None:
    class Model:
        url = model = "same"
        structured = False

        def __init__(self, says: str) -> None:
            self.says = says

        async def complete(self, prompt: str, **_: object) -> Completion:
            await asyncio.sleep(0.05)
            return Completion(self.says, "stop", "", usage=_usage())

    caches = [Cache(tmp_path / "one.sqlite") for _ in range(2)]
    asked = [
        CachedEndpoint(Model(f"Score: {n}"), cache).complete(  # type: ignore[arg-type]
            "p", seed=1, temperature=1.0, max_tokens=9, deadline=None
        )
        for n, cache in enumerate(caches, 1)
    ]
    first, second = await asyncio.gather(*asked)
    assert first.text == second.text
    for cache in caches:
        cache.close()


def _usage():
    from tuneproof_judge.grade import Usage

    return Usage(1, 1, 0, 1)


WRITER = """
import sys
from pathlib import Path
from tuneproof_judge.cache import Cache
cache = Cache(Path(sys.argv[1]))
for n in range(400):
    assert cache.keep(f"k{n}", sys.argv[2] * 2000)[0] in "ab"
"""


@pytest.mark.process
@pytest.mark.slow
def test_two_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "shared.sqlite"
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), letter]) for letter in "ab"
    ]
    assert [each.wait(25) for each in running] == [0, 0]
    cache = Cache(path)
    kept = [cache.get(f"k{n}") for n in range(400)]
    cache.close()
    assert all(each is not None and set(each) in ({"a"}, {"b"}) for each in kept)


async def test_kept_probabilities_weigh_the_same(
    fake, endpoint_of: Make, reply, cache: Cache
) -> None:
    import json
    import math

    shares = {"4": 0.75, "5": 0.25}
    others = [{"token": each, "logprob": math.log(p)} for each, p in shares.items()]
    content = [
        {"token": "Score: ", "logprob": 0.0, "top_logprobs": []},
        {"token": "4", "logprob": math.log(0.75), "top_logprobs": others},
    ]
    body = {
        "choices": [
            {
                "message": {"content": "Score: 4"},
                "finish_reason": "stop",
                "logprobs": {"content": content},
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
    fake.script = lambda _: reply.Reply(body=json.dumps(body).encode())
    endpoint = CachedEndpoint(endpoint_of(), cache)
    means = [(await graded(endpoint, mode="weighted", repeats=1)).mean for _ in range(2)]
    assert means == pytest.approx([4.25, 4.25])
    assert len(fake.asked) == 1
    assert FailureKind.NO_FORM not in (await graded(endpoint, mode="weighted", repeats=1)).failures
