"""Client of the judge."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from pydantic import ValidationError

from tuneproof.judge.v1 import judge_pb2 as pb
from tuneproof.judge.v1.judge_pb2_grpc import JudgeServiceStub
from tuneproof.results import CriterionGrade, Grade, Repeat, Usage
from tuneproof.rubrics import Rubric
from tuneproof.sdk.client import Client
from tuneproof.sdk.streams import Inputs
from tuneproof.sdk.values import (
    CompareInput,
    GradeInput,
    PairComparison,
    PairGrade,
    PairRepeat,
    StepsDraft,
)
from tuneproof.servicekit.errors import InvalidInput, TuneproofError, WrongState
from tuneproof.servicekit.messages import message_of, value_from, values_of, word_of

BATCH_PENDING = "BATCH_PENDING"
"""The reason of a grade whose requests wait for a batch of the judge's endpoint, within a day: all
else that there is to ask may be asked meanwhile, and the same again later."""


class JudgeClient(Client):
    """Asks the judge for grades; see `Client` for the errors."""

    service, contract, stubs = "judge", pb.DESCRIPTOR, (JudgeServiceStub,)

    async def rubrics(self, *, timeout: float = 30.0) -> list[Rubric]:
        """All rubrics that the judge has, by id.

        Raises:
            WrongState: the judge is of another version, so that its rubrics mean something else.
        """
        found = await self._entries(pb.ListRubricsRequest(), "rubrics", timeout)
        return [_rubric(rubric) for rubric in found]

    async def rubric(self, name: str, *, timeout: float = 30.0) -> Rubric:
        """A rubric by id, as `accuracy@1`."""
        return _rubric((await self._call(pb.GetRubricRequest(id=name), timeout)).rubric)

    async def grade(self, one: GradeInput, *, timeout: float = 600.0) -> Grade:
        """Grades one answer."""
        return _grade((await self._call(message_of(pb.GradeRequest, one), timeout)).grade)

    async def compare(self, one: CompareInput, *, timeout: float = 600.0) -> PairComparison:
        """Says which of two answers is better, asked in both orders."""
        message = await self._call(message_of(pb.CompareRequest, one), timeout)
        return _comparison(message.comparison)

    def compare_many(
        self,
        inputs: Inputs[CompareInput],
        *,
        in_flight: int = 16,
        timeout: float = 24 * 3600.0,
        stall: float = 900.0,
    ) -> AsyncIterator[tuple[str, PairComparison | TuneproofError]]:
        """Compares many pairs over one stream; as `grade_many`."""
        return self._outcomes(
            pb.CompareBatchRequest,
            inputs,
            lambda one: {"compare": message_of(pb.CompareRequest, one)},
            _comparison,
            in_flight=in_flight,
            timeout=timeout,
            stall=stall,
        )

    async def draft_steps(
        self,
        criterion: str,
        description: str,
        scale: Mapping[int, str],
        *,
        seed: int = 0,
        timeout: float = 300.0,
    ) -> StepsDraft:
        """Has the judge model write evaluation steps."""
        request = pb.DraftStepsRequest(criterion=criterion, description=description, seed=seed)
        request.scale.update(scale)
        found = await self._call(request, timeout)
        return StepsDraft(tuple(found.steps), found.judge_model)

    def grade_many(
        self,
        inputs: Inputs[GradeInput],
        *,
        in_flight: int = 16,
        timeout: float = 24 * 3600.0,
        stall: float = 900.0,
    ) -> AsyncIterator[tuple[str, Grade | TuneproofError]]:
        """Grades many answers over one stream, in any order; see `Exchange` for the limits.

        Args:
            inputs: by id of the caller's.
        """
        return self._outcomes(
            pb.GradeBatchRequest,
            inputs,
            lambda one: {"grade": message_of(pb.GradeRequest, one)},
            _grade,
            in_flight=in_flight,
            timeout=timeout,
            stall=stall,
        )


def _grade(message: pb.Grade) -> Grade:
    criteria: dict[str, CriterionGrade] = {}
    for entry in message.criteria:
        if entry.criterion in criteria:
            raise InvalidInput(
                f"the rubrics {criteria[entry.criterion].rubric} and {entry.rubric} both score"
                f" {entry.criterion}; ask for one of them"
            )
        repeats = tuple(_repeat(repeat) for repeat in entry.repeats)
        criteria[entry.criterion] = value_from(CriterionGrade, entry, repeats=repeats)
    words = values_of(message.lexical) if message.HasField("lexical") else {}
    return Grade(criteria, words, message.judge_model, value_from(Usage, message.usage))


def _repeat(message: pb.Repeat) -> Repeat:
    scored = message.WhichOneof("outcome") == "score"
    return Repeat(
        seed=message.seed,
        score=message.score if scored else None,
        failure="" if scored else word_of(pb.FailureKind, message.failure.kind),
        completion=message.completion,
        expected=message.weights.expectation if message.HasField("weights") else None,
    )


def _comparison(message: pb.Comparison) -> PairComparison:
    return PairComparison(
        {
            entry.criterion: value_from(
                PairGrade, entry, repeats=tuple(map(_pair_repeat, entry.repeats))
            )
            for entry in message.criteria
        },
        message.judge_model,
    )


def _pair_repeat(message: pb.PairRepeat) -> PairRepeat:
    orders = message.in_order, message.reversed
    first, second = (word_of(pb.Choice, one.choice) if one.choice else "" for one in orders)
    failed = [one.failure.kind for one in orders if one.HasField("failure")]
    return PairRepeat(first, second, tuple(word_of(pb.FailureKind, kind) for kind in failed))


def _rubric(message: pb.Rubric) -> Rubric:
    content = values_of(message)
    digest = content.pop("digest")
    try:
        rubric = Rubric.model_validate(content)
    except ValidationError as error:
        wrong = ", ".join(str(each["loc"][0]) for each in error.errors())
        raise _other_version(message.id, f"cannot be read ({wrong})") from None
    if rubric.digest != digest:
        raise _other_version(message.id, f"has the digest {digest}, its content {rubric.digest}")
    return rubric


def _other_version(rubric: str, why: str) -> WrongState:
    return WrongState(
        f"the judge's rubric {rubric!r} {why}: judge and client are of different versions;"
        " install the same version of both"
    )
