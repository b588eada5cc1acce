"""Between the contract's messages and the judge's values."""

from __future__ import annotations

from typing import Any

from tuneproof.judge.v1 import judge_pb2 as pb
from tuneproof.servicekit.messages import message_of, value_from, word_of
from tuneproof_judge.grade import CriterionGrade, Failure, Grade, JuryGrade, Repeat
from tuneproof_judge.pairs import Comparison, PairGrade, PairRepeat
from tuneproof_judge.prompt import Subject
from tuneproof_judge.task import CompareTask, GradeTask

_DEFAULT_REPEATS = 10
_DEFAULT_RETRIES = 1


def task_of(request: pb.GradeRequest) -> GradeTask:
    """The domain's task, with the contract's defaults."""
    return value_from(
        GradeTask,
        request,
        subject=value_from(Subject, request),
        mode=word_of(pb.Mode, request.mode or pb.MODE_SAMPLED),
        **_sampling_of(request),
    )


def pair_of(request: pb.CompareRequest) -> CompareTask:
    """As `task_of`, for two answers."""
    first, second = (
        Subject(request.question, answer, tuple(request.references), tuple(request.passages))
        for answer in (request.first, request.second)
    )
    given = _sampling_of(request)
    return CompareTask(first, second, tuple(request.rubrics), seed=request.seed, **given)


def _sampling_of(request: pb.GradeRequest | pb.CompareRequest) -> dict[str, Any]:
    return {
        "repeats": request.repeats or _DEFAULT_REPEATS,
        "temperature": request.temperature if request.HasField("temperature") else 1.0,
        "retries": request.retries if request.HasField("retries") else _DEFAULT_RETRIES,
    }


def grade_to_proto(grade: Grade, usage: pb.Usage) -> pb.Grade:
    """The grade as a message; what is None stays absent."""
    criteria = map(_criterion_to_proto, grade.criteria)
    return message_of(pb.Grade, grade, criteria=criteria, stage_times=grade.seconds, usage=usage)


def comparison_to_proto(found: Comparison, usage: pb.Usage) -> pb.Comparison:
    """As `grade_to_proto`, of a pair."""
    return message_of(
        pb.Comparison, found, criteria=map(_pair_to_proto, found.criteria), usage=usage
    )


def _criterion_to_proto(grade: CriterionGrade | JuryGrade) -> pb.CriterionGrade:
    jurors = grade.jurors if isinstance(grade, JuryGrade) else ()
    return message_of(
        pb.CriterionGrade,
        grade,
        repeats=map(_repeat_to_proto, grade.repeats),
        jurors=map(_criterion_to_proto, jurors),
    )


def _repeat_to_proto(repeat: Repeat) -> pb.Repeat:
    case = "failure" if isinstance(repeat.outcome, Failure) else "score"
    return message_of(pb.Repeat, repeat, **{case: repeat.outcome})


def _pair_to_proto(grade: PairGrade) -> pb.PairGrade:
    return message_of(pb.PairGrade, grade, repeats=map(_pair_repeat_to_proto, grade.repeats))


def _pair_repeat_to_proto(repeat: PairRepeat) -> pb.PairRepeat:
    readings = {
        name: message_of(
            pb.PairReading,
            reading,
            **{"choice" if reading.choice else "failure": reading.outcome},
        )
        for name, reading in (("in_order", repeat.in_order), ("reversed", repeat.reversed))
    }
    return message_of(pb.PairRepeat, repeat, **readings)
