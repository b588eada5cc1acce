"""Values from the JSON that the state keeps; `dataclasses.asdict` made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


def grade_from_json(value: Mapping[str, Any]) -> Grade:
    """The output of a grade."""
    criteria = {
        name: CriterionGrade(
            **{
                **score,
                "repeats": tuple(Repeat(**repeat) for repeat in score["repeats"]),
                "refused_parameters": tuple(score.get("refused_parameters", ())),
            }
        )
        for name, score in value["criteria"].items()
    }
    return Grade(criteria, dict(value["lexical"]), value["judge_model"])


def training_from_json(value: Mapping[str, Any]) -> Training:
    """The output of a training run."""
    losses = tuple((int(step), float(loss)) for step, loss in value["losses"])
    return Training(**{**value, "losses": losses})
