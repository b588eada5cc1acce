"""Evaluation steps that the judge model writes for a criterion, once, to be kept in a file.

G-Eval has the model derive its steps from the criterion (Liu et al. 2023, section 2.1). Steps that
are written anew for each answer would be another rubric each time, so they are drafted once and
then stand in a rubric's file, whose digest covers them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tuneproof.rubrics import HIGHEST
from tuneproof.servicekit.errors import InvalidInput, WrongState
from tuneproof_judge.grade import Usage
from tuneproof_judge.task import MAX_CHARACTERS

MAX_TOKENS = 600
_MOST_STEPS = 12
_STEP = re.compile(
    r"^\s*(?:\*\*)?(?:step\s+)?\d{1,2}[.):](?:\*\*)?\s*(?P<text>\S.*)$", re.IGNORECASE
)

_PROMPT = """\
You write the instructions of an examiner who scores answers to questions by one criterion.

Criterion: {criterion}
{description}

Scale:
{scale}

Write the evaluation steps that lead from the question and the answer to the score: what to read,
what to list, what to compare, and how to choose the score. Write a numbered list of three to eight
steps, one line each, and nothing else.
"""


@dataclass(frozen=True)
class StepsTask:
    """What steps are wanted for."""

    criterion: str
    description: str
    scale: Mapping[int, str]
    seed: int = 0

    def check(self) -> None:
        """Checks that all is there.

        Raises:
            InvalidInput: naming the field.
        """
        for name in ("criterion", "description"):
            text: str = getattr(self, name)
            if not text.strip() or len(text) > MAX_CHARACTERS:
                raise InvalidInput(f"{name} is blank or too long", field=name)
        if len(self.scale) < 2 or not all(0 <= score <= HIGHEST for score in self.scale):
            raise InvalidInput(
                f"scale needs two scores or more from 0 to {HIGHEST}, each with its anchor",
                field="scale",
            )

    @property
    def prompt(self) -> str:
        """The user message."""
        anchors = sorted(self.scale.items())
        scale = "\n".join(f"{score}: {anchor.strip()}" for score, anchor in anchors)
        return _PROMPT.format(
            criterion=self.criterion, description=self.description.strip(), scale=scale
        )


@dataclass(frozen=True)
class Draft:
    """Steps, and who wrote them."""

    steps: tuple[str, ...]
    judge_model: str
    usage: Usage


def read_steps(completion: str) -> tuple[str, ...]:
    """The steps of a numbered list.

    Raises:
        WrongState: it is none, or has fewer than two steps or more than twelve.
    """
    found = [_STEP.match(line) for line in completion.splitlines() if line.strip()]
    steps = tuple(each["text"].strip() for each in found if each)
    if not 2 <= len(steps) <= _MOST_STEPS:
        raise WrongState(
            f"the judge model wrote no list of evaluation steps, but {completion.strip()[:200]!r}:"
            " try another seed or model, or write the steps yourself"
        )
    return steps
