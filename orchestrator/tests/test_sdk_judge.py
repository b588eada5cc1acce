"""The judge's client, against a small judge in this process."""

from __future__ import annotations

import pytest
from small_study import rubric_message

from tuneproof.judge.v1 import judge_pb2 as pb
from tuneproof.judge.v1 import judge_pb2_grpc as stubs
from tuneproof.results import Repeat, Usage
from tuneproof.rubrics import Rubric
from tuneproof.sdk import CompareInput, GradeInput, JudgeClient, PairRepeat
from tuneproof.servicekit.errors import InvalidInput, NotFound, WrongState
from tuneproof.servicekit.paging import page
from tuneproof.servicekit.server import Service
from tuneproof.servicekit.status import status_of
from tuneproof.servicekit.testing import serving

pytestmark = pytest.mark.timeout(20)


def _rubric(name: str, **said: object) -> pb.Rubric:
    rubric = Rubric(
        id=name, criterion="accuracy", description="Is it right?", low=1, high=5,
        scale={1: "wrong", 5: "right"}, steps=("Read.",), template="{{answer}}", max_tokens=96,
    )  # fmt: skip
    message = rubric_message(rubric)
    message.MergeFrom(pb.Rubric(**said))
    return message


class _Judge(stubs.JudgeServiceServicer):
    """Scores by the answer's length; a rubric's criterion is its name."""

    def __init__(self) -> None:
        self.requests: list[pb.GradeRequest] = []
        self.said: dict[str, object] = {}
        """Of the rubric, instead of what is right."""

    def _grade(self, request: pb.GradeRequest) -> pb.Grade:
        self.requests.append(request)
        if not request.references:
            raise InvalidInput("no reference")
        grade = pb.Grade(judge_model="toy" if request.rubrics else "")
        grade.lexical.token_f1 = 0.5
        grade.usage.prompt_tokens, grade.usage.price, grade.usage.currency = 90, 0.5, "USD"
        for rubric in request.rubrics:
            entry = grade.criteria.add(rubric=rubric, rubric_digest="sha256:r")
            entry.criterion = rubric.partition("@")[0].partition("-")[0]
            entry.refused_parameters.append("seed")
            if request.answer:
                entry.mean, entry.standard_deviation = len(request.answer), 0.0
                entry.repeats.add(seed=11, score=len(request.answer), completion="Score")
            failure = pb.Failure(kind=pb.FAILURE_KIND_CUT_OFF, detail="at 96 tokens")
            entry.repeats.add(index=1, seed=12, failure=failure, completion="because")
        return grade

    async def Grade(self, request, context):
        return pb.GradeResponse(grade=self._grade(request))

    async def GradeBatch(self, request_iterator, context):
        async for request in request_iterator:
            try:
                yield pb.GradeBatchResponse(id=request.id, result=self._grade(request.grade))
            except InvalidInput as error:
                yield pb.GradeBatchResponse(id=request.id, error=status_of(error))

    async def CompareBatch(self, request_iterator, context):
        async for request in request_iterator:
            found = pb.Comparison(judge_model="toy")
            for rubric in request.compare.rubrics:
                entry = found.criteria.add(rubric=rubric, criterion="accuracy", preference=0.5)
                entry.repeats.add().in_order.choice = pb.CHOICE_FIRST
                entry.repeats[0].reversed.choice = pb.CHOICE_TIE
                entry.repeats.add().reversed.failure.kind = pb.FAILURE_KIND_NO_FORM
            yield pb.CompareBatchResponse(id=request.id, result=found)

    async def DraftSteps(self, request, context):
        return pb.DraftStepsResponse(steps=[*request.scale.values()], judge_model="toy")

    async def GetRubric(self, request, context):
        if request.id != "accuracy@1":
            raise NotFound(f"there is no rubric {request.id}")
        return pb.GetRubricResponse(rubric=_rubric(request.id, **self.said))

    async def ListRubrics(self, request, context):
        rubrics = [_rubric(name) for name in ("a@1", "b@1", "c@1")]
        some, token = page(rubrics, 2, request.page_token, lambda rubric: rubric.id)
        return pb.ListRubricsResponse(rubrics=some, next_page_token=token)


@pytest.fixture
def fake() -> _Judge:
    return _Judge()


@pytest.fixture
async def client(fake):
    async def ready() -> None: ...

    service = Service(
        register=lambda server: stubs.add_JudgeServiceServicer_to_server(fake, server),
        descriptors=[pb.DESCRIPTOR.services_by_name["JudgeService"]],
        check_ready=ready,
    )
    async with serving(service) as target, JudgeClient(target) as found:
        yield found


def _input(answer: str, *rubrics: str, references: tuple[str, ...] = ("abcd",)) -> GradeInput:
    return GradeInput("What?", answer, references, ("p",), rubrics, 2, 5, 0.0)


async def test_a_grade_says_what_the_judge_said(client, fake):
    grade = await client.grade(_input("abc", "accuracy@1", "completeness@1"))
    assert set(grade.criteria) == {"accuracy", "completeness"}
    score = grade.criteria["accuracy"]
    assert (score.rubric, score.rubric_digest) == ("accuracy@1", "sha256:r")
    assert (score.mean, score.standard_deviation) == (3.0, 0.0)
    assert score.repeats == (
        Repeat(seed=11, score=3, failure="", completion="Score"),
        Repeat(seed=12, score=None, failure="cut_off", completion="because"),
    )
    assert grade.lexical == {"exact_match": 0.0, "token_f1": 0.5, "rouge_l": 0.0}
    assert grade.judge_model == "toy"
    assert grade.usage == Usage(90, price=0.5, currency="USD")
    assert score.refused_parameters == ("seed",)
    [request] = fake.requests
    assert (request.repeats, request.seed, list(request.passages)) == (2, 5, ["p"])
    assert request.HasField("temperature")
    assert request.temperature == 0


async def test_unscored_is_none_and_not_zero(client):
    score = (await client.grade(_input("", "accuracy@1"))).criteria["accuracy"]
    assert score.mean is None
    assert score.standard_deviation is None


async def test_without_rubrics_there_are_lexical_scores_only(client, fake):
    grade = await client.grade(GradeInput("What?", "x", ("y",)))
    assert grade.criteria == {}
    assert grade.judge_model == ""
    assert not fake.requests[0].HasField("temperature")


async def test_two_rubrics_of_one_criterion_lose_none_silently(client):
    with pytest.raises(InvalidInput, match="accuracy-a@1 and accuracy-b@1 both score accuracy"):
        await client.grade(_input("x", "accuracy-a@1", "accuracy-b@1"))


async def test_many_answers_over_one_stream(client):
    inputs = {f"a{n}": _input("x" * n, "accuracy@1") for n in range(1, 6)}
    inputs["none"] = _input("x", references=())
    inputs["both"] = _input("x", "accuracy-a@1", "accuracy-b@1")
    inputs["half"] = _input("a\ud800", "accuracy@1")
    inputs["half in a list"] = _input("a", "accuracy@1", references=("b", "\udfff"))
    found = {name: outcome async for name, outcome in client.grade_many(inputs)}
    assert isinstance(found.pop("none"), InvalidInput)
    assert isinstance(found.pop("both"), InvalidInput)
    for name, field in (("half", "answer"), ("half in a list", "references")):
        error = found.pop(name)
        assert isinstance(error, InvalidInput)
        assert f"{field} holds half a character" in error.message
    means = {name: grade.criteria["accuracy"].mean for name, grade in found.items()}
    assert means == {f"a{n}": float(n) for n in range(1, 6)}


async def test_pairs_are_compared_over_one_stream(client):
    pair = CompareInput("What?", "x", "y", rubrics=("accuracy@1",))
    ((name, found),) = [each async for each in client.compare_many({"p": pair})]
    assert (name, found.judge_model) == ("p", "toy")
    grade = found.criteria["accuracy"]
    assert (grade.preference, grade.position_bias) == (0.5, None)
    assert grade.repeats == (PairRepeat("first", "tie"), PairRepeat("", "", ("no_form",)))


async def test_steps_are_drafted(client):
    draft = await client.draft_steps("tone", "Polite?", {1: "no", 2: "yes"})
    assert (set(draft.steps), draft.judge_model) == ({"no", "yes"}, "toy")


async def test_rubrics_are_told(client):
    rubric = await client.rubric("accuracy@1")
    assert (rubric.criterion, rubric.steps, rubric.max_tokens) == ("accuracy", ("Read.",), 96)
    assert rubric.scale == {1: "wrong", 5: "right"}
    assert (rubric.low, rubric.high, rubric.unit, rubric.decimals) == (1, 5, "points", 2)
    assert [one.id for one in await client.rubrics()] == ["a@1", "b@1", "c@1"]
    with pytest.raises(NotFound, match="no rubric x@1"):
        await client.rubric("x@1")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"digest": "sha256:other"}, "has the digest sha256:other, its content sha256:"),
        ({"high": 9}, r"cannot be read \(scale\)"),
        ({"template": "{{tone}}"}, r"cannot be read \(template\)"),
    ],
)
async def test_a_rubric_that_means_something_else_here_is_refused(client, fake, said, told):
    fake.said = said
    with pytest.raises(WrongState, match=f"rubric 'accuracy@1' {told}.*install the same version"):
        await client.rubric("accuracy@1")
