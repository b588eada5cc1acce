"""Between values and the JSON that the state keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tuneproof.results import CriterionGrade, Grade, Repeat, Training


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """A passage as it was found."""

    passage_id: str
    document_id: str
    text: str
    score: float


def passages_from_json(value: Mapping[str, Any]) -> tuple[StoredPassage, ...]:
    """The output of a retrieval."""
    return tuple(StoredPassage(**passage) for passage in value["passages"])


def passages_to_json(passages: tuple[StoredPassage, ...]) -> dict[str, Any]:
    """The way back from `passages_from_json`."""
    return {"passages": [asdict(passage) for passage in passages]}


def grade_to_json(grade: Grade) -> dict[str, Any]:
    """The output of a grade."""
    return asdict(grade)


def grade_from_json(value: Mapping[str, Any]) -> Grade:
    """The way back from `grade_to_json`."""
    criteria = {
        name: CriterionGrade(
            **{**score, "repeats": tuple(Repeat(**repeat) for repeat in score["repeats"])}
        )
        for name, score in value["criteria"].items()
    }
    return Grade(criteria, dict(value["lexical"]), value["judge_model"])


def training_to_json(training: Training) -> dict[str, Any]:
    """The output of a training run."""
    return asdict(training)


def training_from_json(value: Mapping[str, Any]) -> Training:
    """The way back from `training_to_json`."""
    losses = tuple((int(step), float(loss)) for step, loss in value["losses"])
    return Training(**{**value, "losses": losses})
