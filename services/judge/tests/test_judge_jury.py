"""A jury of judges, what its judges cost, steps that a model drafts, and retries."""

import json
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from tuneproof.judge.v1 import judge_pb2 as pb
from tuneproof.judge.v1.judge_pb2_grpc import JudgeServiceStub
from tuneproof.rubrics import RubricShelf
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_judge.endpoint import OpenAIEndpoint
from tuneproof_judge.grade import CriterionGrade, FailureKind, Repeat, Usage
from tuneproof_judge.grading import Grader
from tuneproof_judge.jury import load_jury
from tuneproof_judge.prices import load_prices
from tuneproof_judge.prompt import Subject
from tuneproof_judge.task import GradeTask

pytestmark = pytest.mark.timeout(60)

Make = Callable[..., OpenAIEndpoint]
SHELF = RubricShelf.load()
REQUEST = pb.GradeRequest(
    question="Which power?", answer="46 dBm.", references=["It is 46 dBm."],
    rubrics=["accuracy@1"], repeats=2,
)  # fmt: skip


@pytest.fixture
def jury(tmp_path: Path, fake) -> Path:
    path = tmp_path / "jury.yaml"
    judges = [{"url": fake.url, "model": name} for name in ("mild", "strict", "strange")]
    path.write_text(json.dumps({"judges": judges}))
    return path


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(
        "currency: USD\n"
        "models:\n"
        "  fake: {prompt: 1, cached: 0.5, completion: 10}\n"
        "  mild: {prompt: 1, completion: 10}\n"
        "  strict: {prompt: 2, completion: 20}\n"
        "  strange: {prompt: 2, completion: 20}\n"
    )
    return path


async def test_a_jurys_grade_is_its_mean_and_tells_each_judge(
    fake, judge, reply, jury: Path, prices: Path
) -> None:
    scores = {"mild": "Score: 5", "strict": "Score: 3", "strange": "I cannot say."}
    fake.script = lambda asked: reply.says(scores[asked.body["model"]])
    given = {"endpoint_url": "", "endpoint_model": "", "jury": jury, "prices": prices}
    async with judge(**given) as target, grpc.aio.insecure_channel(target) as channel:
        grade = (await JudgeServiceStub(channel).Grade(REQUEST)).grade
    (criterion,) = grade.criteria
    assert grade.judge_model == "mild + strict + strange"
    assert [(one.judge_model, one.mean) for one in criterion.jurors[:2]] == [
        ("mild", 5.0),
        ("strict", 3.0),
    ]
    assert not criterion.jurors[2].HasField("mean")
    assert (criterion.mean, criterion.agreement) == (4.0, 0.5)
    assert len(criterion.repeats) == 6
    # 100 prompt tokens of which 64 are cached, and 7 completion tokens, for each of two requests;
    # the third judge is asked again for each.
    assert grade.usage.price == pytest.approx((2 * 170 + 2 * 340 + 4 * 340) / 1e6)


async def test_the_price_of_a_grade_counts_what_was_cached(fake, judge, prices: Path) -> None:
    for models, price in (("fake", 2 * (36 + 32 + 70) / 1e6), ("unknown", None)):
        settings = {"prices": prices, "endpoint_model": models}
        async with judge(**settings) as target, grpc.aio.insecure_channel(target) as channel:
            usage = (await JudgeServiceStub(channel).Grade(REQUEST)).grade.usage
        assert usage.HasField("price") == (price is not None)
        assert usage.price == pytest.approx(price or 0.0)
        assert usage.currency == ("USD" if price else "")


def test_mistakes_of_the_files_are_told_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("judges:\n- {url: ftp://x, model: a}\n- {url: 'http://x', model: ''}\n")
    with pytest.raises(InvalidInput) as caught:
        load_jury(path)
    lines = caught.value.message.splitlines()
    assert [line.split(":")[1] for line in lines][-2:] == ["2", "3"]
    path.write_text("currency: USD\nmodels:\n  a: {prompt: -1, completion: 1}\n")
    with pytest.raises(InvalidInput, match=r"x\.yaml:3: models\.a\.prompt"):
        load_prices(path)


async def test_steps_are_drafted_once_and_by_the_judge_model(fake, judge, reply) -> None:
    fake.script = lambda _: reply.says("Here:\n1. Read it.\n2. **Compare** them.\n3) Choose.")
    request = pb.DraftStepsRequest(criterion="tone", description="Is it polite?", seed=3)
    request.scale.update({1: "rude", 3: "polite"})
    async with judge() as target, grpc.aio.insecure_channel(target) as channel:
        stub = JudgeServiceStub(channel)
        draft = await stub.DraftSteps(request)
        assert list(draft.steps) == ["Read it.", "**Compare** them.", "Choose."]
        assert (draft.judge_model, draft.usage.requests) == ("fake", 1)
        (asked,) = fake.asked
        assert (asked.body["seed"], asked.body["temperature"]) == (3, 0)
        assert "1: rude\n3: polite" in asked.prompt
        fake.script = lambda _: reply.says("I would just read it.")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.DraftSteps(request)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.DraftSteps(pb.DraftStepsRequest(criterion="tone"))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def graded(endpoint: OpenAIEndpoint, **more: object) -> CriterionGrade:
    subject = Subject("Which power?", "46 dBm.", ("It is 46 dBm.",))
    task = GradeTask(subject, ("accuracy@1",), **more)  # type: ignore[arg-type]
    (criterion,) = (await Grader(SHELF, endpoint).grade(task)).criteria
    assert isinstance(criterion, CriterionGrade)
    return criterion


async def test_a_reading_without_a_score_is_asked_again_with_another_seed(
    fake, endpoint_of: Make, reply
) -> None:
    said = {0: "No form", 1: "Score: 10", 2: "Score: 4"}
    fake.script = lambda _: reply.says(said[min(len(fake.asked) - 1, 2)])
    criterion = await graded(endpoint_of(), repeats=1, retries=2)
    (repeat,) = criterion.repeats
    assert repeat.outcome == 4
    kinds = [each.kind for each in repeat.earlier]
    assert kinds == [FailureKind.NO_FORM, FailureKind.OUT_OF_RANGE]
    assert criterion.failures == {FailureKind.NO_FORM: 1, FailureKind.OUT_OF_RANGE: 1}
    assert repeat.usage == Usage(300, 21, 192, 3)
    assert len({asked.body["seed"] for asked in fake.asked}) == 3
    assert repeat.seed == fake.asked[-1].body["seed"]


async def test_the_budget_of_retries_ends(fake, endpoint_of: Make, reply) -> None:
    fake.script = lambda _: reply.says("No form")
    criterion = await graded(endpoint_of(), repeats=2, retries=2)
    assert (criterion.mean, criterion.lost_repeats, len(fake.asked)) == (None, 2, 6)
    assert criterion.failures == {FailureKind.NO_FORM: 6}


async def test_a_retry_that_is_sent_away_does_not_make_an_outage(
    fake, endpoint_of: Make, reply
) -> None:
    fake.script = lambda _: reply.says("No form") if len(fake.asked) == 1 else reply.fails(503)
    criterion = await graded(endpoint_of(attempts=1), repeats=1, retries=1)
    assert criterion.failures == {FailureKind.NO_FORM: 1, FailureKind.ENDPOINT: 1}


@pytest.mark.parametrize("more", [{"temperature": 0.0}, {"retries": 0}])
async def test_what_another_seed_cannot_change_is_not_asked_again(
    fake, endpoint_of: Make, reply, more: dict[str, float]
) -> None:
    fake.script = lambda _: reply.says("No form")
    await graded(endpoint_of(), **{"repeats": 1, "retries": 3, **more})
    assert len(fake.asked) == 1


async def test_the_endpoints_own_failures_have_their_own_attempts(
    fake, endpoint_of: Make, reply
) -> None:
    fake.script = lambda _: reply.fails(500)
    criterion = await graded(endpoint_of(attempts=2), repeats=1, retries=3)
    assert len(fake.asked) == 2
    assert criterion.failures == {FailureKind.ENDPOINT: 1}


@pytest.mark.parametrize("rubric", ["faithfulness@1", "relevance@1", "abstention@1"])
async def test_rubrics_that_read_no_reference_need_none(
    fake, endpoint_of: Make, rubric: str
) -> None:
    subject = Subject("Which power?", "46 dBm.", (), ("It sends with 46 dBm.",))
    grade = await Grader(SHELF, endpoint_of()).grade(GradeTask(subject, (rubric,), repeats=1))
    assert grade.criteria[0].mean == 4
    assert grade.lexical is None
    shown = "It sends with 46 dBm." in fake.asked[0].prompt
    assert shown == (rubric != "relevance@1")
    with pytest.raises(InvalidInput, match="reads it"):
        await Grader(SHELF, endpoint_of()).grade(GradeTask(Subject("Q", "A", ()), ("accuracy@1",)))


def test_a_repeat_is_worth_its_score() -> None:
    assert Repeat(0, 1, 4).value == 4.0
