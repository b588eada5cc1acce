"""The judge over gRPC, and as a process."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from tuneproof.judge.v1 import judge_pb2 as pb
from tuneproof.judge.v1.judge_pb2_grpc import JudgeServiceStub
from tuneproof.servicekit.client import connect, typed_errors, wait_ready
from tuneproof.servicekit.errors import InvalidInput, NotFound, Unavailable, WrongState
from tuneproof.servicekit.status import error_of

pytestmark = pytest.mark.timeout(30)

SERVICES = [pb.DESCRIPTOR.services_by_name["JudgeService"]]


@asynccontextmanager
async def client(target: str) -> AsyncIterator[JudgeServiceStub]:
    async with connect(target, services=SERVICES) as channel:
        yield JudgeServiceStub(channel)


def asked(answer: str = "46 dBm.", *rubrics: str, **more) -> pb.GradeRequest:
    return pb.GradeRequest(
        question="Which power?",
        answer=answer,
        references=["It is 46 dBm."],
        rubrics=rubrics,
        **more,
    )


async def test_a_grade_says_all_that_is_known(fake, judge, reply) -> None:
    scores = iter([5, 4, 3])
    fake.script = lambda _: reply.says(f"Reasons: so.\nScore: {next(scores, 9)}")
    async with judge() as target, client(target) as stub:
        request = asked("46 dBm.", "accuracy@1", repeats=4, seed=11)
        grade = (await stub.Grade(request)).grade
        rubric = (await stub.GetRubric(pb.GetRubricRequest(id="accuracy@1"))).rubric
    (criterion,) = grade.criteria
    assert criterion.rubric == "accuracy@1"
    assert criterion.rubric_digest == rubric.digest
    assert criterion.mode == pb.MODE_SAMPLED
    assert criterion.mean == 4
    assert criterion.standard_deviation == 1
    assert criterion.scored_repeats == 3
    outcomes = [one.WhichOneof("outcome") for one in criterion.repeats]
    assert sorted(outcomes) == ["failure", "score", "score", "score"]
    failed = next(one for one in criterion.repeats if one.HasField("failure"))
    assert failed.failure.kind == pb.FAILURE_KIND_OUT_OF_RANGE
    assert len({one.seed for one in criterion.repeats}) == 4
    assert grade.judge_model == "fake"
    assert grade.usage.requests == 5  # the failed one was asked again
    assert [each.kind for each in failed.earlier] == [pb.FAILURE_KIND_OUT_OF_RANGE]
    assert [(each.kind, each.count) for each in criterion.failures] == [
        (pb.FAILURE_KIND_OUT_OF_RANGE, 2)
    ]
    assert criterion.judge_model == "fake"
    assert grade.usage.cached_tokens == 5 * 64
    assert grade.lexical.token_f1 == pytest.approx(2 / 3)
    assert {time.stage for time in grade.stage_times} == {"lexical", "judge"}


TONE = """
id: tone@1
criterion: tone
description: Is it polite?
scale: {scale}
steps: [Read it.]
template: "{{{{scale}}}} from {{{{low}}}} to {{{{high}}}}: {{{{answer}}}}"
"""


@pytest.mark.parametrize(
    ("scale", "range_", "said", "mean", "lost"),
    [
        (
            "{0: rude, 5: so, 10: kind}\nlow: 0\nhigh: 10\nunit: stars",
            (0, 10),
            "0 10 7 11",
            17 / 3,
            1,
        ),
        ("{1: rude, 2: so, 3: kind}\ndecimals: 1", (1, 3), "3 1 0 4", 2, 2),
    ],
)
async def test_a_rubric_of_another_scale_works_from_file_to_grade(
    fake, judge, reply, tmp_path, *, scale, range_, said, mean, lost
) -> None:
    (tmp_path / "tone.yaml").write_text(TONE.format(scale=scale))
    scores = iter(said.split())
    fake.script = lambda _: reply.says(f"Reasons: so.\nScore: {next(scores)}")
    async with judge(rubrics=tmp_path) as target, client(target) as stub:
        rubric = (await stub.GetRubric(pb.GetRubricRequest(id="tone@1"))).rubric
        listed = (await stub.ListRubrics(pb.ListRubricsRequest())).rubrics
        grade = (await stub.Grade(asked("Please.", "tone@1", repeats=4, retries=0))).grade
    assert (rubric.low, rubric.high) == range_
    assert (rubric.unit, rubric.decimals) == (("stars", 2) if "stars" in scale else ("points", 1))
    assert rubric in listed
    assert f"from {range_[0]} to {range_[1]}: Please." in fake.asked[0].prompt
    (criterion,) = grade.criteria
    assert criterion.mean == pytest.approx(mean)
    assert (criterion.scored_repeats, criterion.lost_repeats) == (4 - lost, lost)
    failed = [one.failure.kind for one in criterion.repeats if one.HasField("failure")]
    assert failed == [pb.FAILURE_KIND_OUT_OF_RANGE] * lost


async def test_unscored_is_absent_and_not_zero(fake, judge, reply) -> None:
    fake.script = lambda _: reply.says("")
    async with judge() as target, client(target) as stub:
        grade = (await stub.Grade(asked("A", "accuracy@1"))).grade
    (criterion,) = grade.criteria
    assert not criterion.HasField("mean")
    assert not criterion.HasField("standard_deviation")
    assert criterion.scored_repeats == 0
    assert len(criterion.repeats) == 10
    assert {one.failure.kind for one in criterion.repeats} == {pb.FAILURE_KIND_NO_FORM}


async def test_a_temperature_of_zero_is_no_missing_one(fake, judge) -> None:
    async with judge() as target, client(target) as stub:
        await stub.Grade(asked("A", "accuracy@1", repeats=1, temperature=0.0))
        await stub.Grade(asked("A", "accuracy@1", repeats=1))
    assert [each.body["temperature"] for each in fake.asked] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("request_", "error", "said"),
    [
        (asked("x" * 100_001), InvalidInput, "answer has 100,001"),
        (asked("x" * 1_000_000), InvalidInput, "answer has 1,000,000"),
        (asked("A", "nonsense@1"), NotFound, "accuracy@1, completeness@1"),
        (pb.GradeRequest(answer="A"), InvalidInput, "references is empty"),
        (asked("A", repeats=101), InvalidInput, "repeats is 101"),
    ],
)
async def test_bad_input_is_refused(judge, request_, error: type[Exception], said: str) -> None:
    async with judge() as target, client(target) as stub:
        with pytest.raises(error, match=said), typed_errors():
            await stub.Grade(request_)


async def test_without_an_endpoint_words_still_count(judge) -> None:
    async with judge(endpoint_url="", endpoint_model="") as target, client(target) as stub:
        grade = (await stub.Grade(asked("It is 46 dBm"))).grade
        assert (grade.lexical.exact_match, grade.lexical.rouge_l) == (1.0, 1.0)
        with pytest.raises(WrongState, match="--endpoint-url"), typed_errors():
            await stub.Grade(asked("A", "accuracy@1"))


async def test_a_batch_answers_every_item_under_its_id_and_one_bad_item_ends_nothing(
    fake, judge, reply
) -> None:
    fake.script = lambda _: reply.says("Score: 3")

    async def items() -> AsyncIterator[pb.GradeBatchRequest]:
        for number in range(20):
            yield pb.GradeBatchRequest(id=str(number), grade=asked("A", "accuracy@1", repeats=2))
        yield pb.GradeBatchRequest(id="bad", grade=pb.GradeRequest(answer="A"))
        yield pb.GradeBatchRequest(grade=asked("A"))
        yield pb.GradeBatchRequest(id="0", grade=asked("again"))

    async with judge() as target, client(target) as stub:
        responses = [response async for response in stub.GradeBatch(items())]
    scored = {each.id: each.result for each in responses if each.HasField("result")}
    assert set(scored) == {str(number) for number in range(20)}
    assert {grade.criteria[0].mean for grade in scored.values()} == {3.0}
    failed = {each.id: error_of(each.error) for each in responses if each.HasField("error")}
    assert set(failed) == {"bad", "", "0"}
    assert "references" in failed["bad"].message
    assert "id is empty" in failed[""].message
    assert "came before" in failed["0"].message


async def test_a_batch_keeps_to_the_limit_of_requests_in_flight(fake, judge, reply) -> None:
    async def slowly(_):
        await asyncio.sleep(0.005)
        return reply.says("Score: 3")

    fake.script = slowly

    async def items() -> AsyncIterator[pb.GradeBatchRequest]:
        for number in range(8):
            yield pb.GradeBatchRequest(id=str(number), grade=asked("A", "accuracy@1", repeats=5))

    async with judge(concurrency=4) as target, client(target) as stub:
        responses = [response async for response in stub.GradeBatch(items())]
    assert len(responses) == 8
    assert fake.most_under_way == 4


async def test_items_of_a_batch_are_unavailable_while_the_endpoint_is_down(
    judge, closed_url: str
) -> None:
    async def items() -> AsyncIterator[pb.GradeBatchRequest]:
        yield pb.GradeBatchRequest(id="1", grade=asked("A", "accuracy@1", repeats=2))
        yield pb.GradeBatchRequest(id="2", grade=asked("A"))

    async with judge(endpoint_url=closed_url) as target, client(target) as stub:
        responses = {each.id: each async for each in stub.GradeBatch(items())}
    error = error_of(responses["1"].error)
    assert isinstance(error, Unavailable)
    assert error.retry_after is not None
    assert responses["2"].HasField("result")


@pytest.mark.parametrize("method", ["Grade", "GradeBatch"])
async def test_cancelling_a_call_drops_its_requests(fake, judge, method: str) -> None:
    async def hang(_):
        await asyncio.Event().wait()

    fake.script = hang
    request = asked("A", "accuracy@1", repeats=3)

    async def items() -> AsyncIterator[pb.GradeBatchRequest]:
        yield pb.GradeBatchRequest(id="1", grade=request)

    async with judge() as target, client(target) as stub:
        call = stub.Grade(request) if method == "Grade" else stub.GradeBatch(items())
        if method == "Grade":
            waiting = asyncio.ensure_future(call)
        else:
            waiting = asyncio.ensure_future(call.read())
        while not fake.under_way:
            await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        while fake.under_way:
            await asyncio.sleep(0.01)
    assert fake.left_early == 1
    assert [each.body["n"] for each in fake.asked] == [3]


async def test_the_deadline_of_a_call_ends_its_requests(fake, judge) -> None:
    async def hang(_):
        await asyncio.Event().wait()

    fake.script = hang
    async with judge() as target, client(target) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Grade(asked("A", "accuracy@1", repeats=2), timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        while fake.under_way:
            await asyncio.sleep(0.01)


async def test_rubrics_are_listed_in_pages(judge, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "id: brief@2\ncriterion: brevity\ndescription: Short?\nscale: {1: long, 2: short}\n"
        "steps: [Count.]\ntemplate: '{{answer}}'\nmax_tokens: 9\n"
    )
    async with judge(rubrics=tmp_path) as target, client(target) as stub:
        first = await stub.ListRubrics(pb.ListRubricsRequest(page_size=3))
        second = await stub.ListRubrics(
            pb.ListRubricsRequest(page_size=3, page_token=first.next_page_token)
        )
        with pytest.raises(InvalidInput, match="page_token"), typed_errors():
            await stub.ListRubrics(pb.ListRubricsRequest(page_token="!"))
        with pytest.raises(NotFound, match="brief@2"), typed_errors():
            await stub.GetRubric(pb.GetRubricRequest(id="brief@1"))
    assert [each.id for each in first.rubrics] == ["abstention@1", "accuracy@1", "brief@2"]
    last = ["completeness@1", "faithfulness@1", "relevance@1"]
    assert [each.id for each in second.rubrics] == last
    assert second.next_page_token == ""
    own = first.rubrics[2]
    assert (dict(own.scale), own.max_tokens) == ({1: "long", 2: "short"}, 9)
    assert own.digest.startswith("sha256:")


def start(*flags: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tuneproof_judge", *flags],
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.process
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--endpoint-url", "http://127.0.0.1:9/v1"], ["endpoint_model is not"]),
        (["--endpoint-model", "m"], ["endpoint_url is not"]),
        (
            ["--endpoint-url", "ftp://x", "--concurrency", "0"],
            ["--endpoint-url: is not an http", "--concurrency: "],
        ),
    ],
)
def test_contradictory_settings_end_the_start_with_all_mistakes(
    flags: list[str], said: list[str]
) -> None:
    process = start(*flags)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert all(text in errors for text in said)


@pytest.mark.process
def test_a_bad_rubric_ends_the_start_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("id: x@1\n")
    process = start("--rubrics", str(tmp_path))
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "bad.yaml" in errors
    assert "template" in errors


@pytest.mark.process
async def test_the_process_serves_becomes_ready_and_drains(fake, reply, tmp_path: Path) -> None:
    announced = tmp_path / "judge.json"
    fake.script = lambda _: reply.says("Score: 2")
    process = start(
        "--endpoint-url",
        fake.url,
        "--endpoint-model",
        "fake",
        "--announce-file",
        str(announced),
        TUNEPROOF_JUDGE_API_KEY="sk-from-the-environment",
    )
    try:
        while not announced.exists():
            assert process.poll() is None
            await asyncio.sleep(0.02)
        addresses = json.loads(announced.read_text())
        await wait_ready(addresses["health"], timeout=15)
        async with client(addresses["grpc"]) as stub:
            grade = (await stub.Grade(asked("A", "accuracy@1", repeats=1))).grade
        assert grade.criteria[0].mean == 2
        assert fake.asked[0].key == "sk-from-the-environment"
        process.send_signal(signal.SIGTERM)
        _, log = await asyncio.to_thread(process.communicate, timeout=15)
        assert process.returncode == 0
        assert "sk-from-the-environment" not in log
    finally:
        process.kill()
        process.wait()


@pytest.mark.process
def test_the_judge_imports_no_model_library() -> None:
    heavy = ["torch", "vllm", "transformers", "lancedb", "nltk", "tuneproof.sdk"]
    others = ["tuneproof_generator", "tuneproof_trainer", "tuneproof_retriever"]
    program = (
        "import sys, tuneproof_judge.main;"
        f"print([name for name in {heavy + others} if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=20
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.process
def test_scoring_by_words_imports_no_model_library() -> None:
    program = (
        "import sys; from tuneproof_judge.lexical import score; score('a', ['b']);"
        "print([name for name in ('torch', 'vllm', 'transformers') if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert found.stdout.strip() == "[]"


def test_the_readme_tells_every_setting() -> None:
    from tuneproof.servicekit.settings import ServiceSettings
    from tuneproof_judge.settings import JudgeSettings

    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    own = set(JudgeSettings.model_fields) - set(ServiceSettings.model_fields)
    assert own
    for name in own:
        assert f"`--{name.replace('_', '-')}`" in readme
