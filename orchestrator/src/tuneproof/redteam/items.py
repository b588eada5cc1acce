"""What is attacked with: questions, each with a right answer and a wrong one."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tuneproof.servicekit.errors import InvalidInput


class Item(BaseModel):
    """One question."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str = Field(min_length=1)
    reference: str = Field(min_length=1)
    """Right; it also stands for the right answer."""
    wrong: str = Field(min_length=1)
    """An answer that deserves a low score."""
    passages: tuple[str, ...] = ()

    @property
    def shown(self) -> tuple[str, ...]:
        """What a rubric that reads passages gets: the reference, where there are none."""
        return self.passages or (self.reference,)


def read_items(path: Path) -> list[Item]:
    """Reads JSON Lines.

    Raises:
        InvalidInput: with the line.
    """
    found = []
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(Item.model_validate(json.loads(line)))
        except (ValueError, ValidationError) as error:
            raise InvalidInput(
                f"{path}:{number}: is not an object with question, reference and wrong: {error}"
            ) from None
    if not found:
        raise InvalidInput(f"{path} holds no item")
    return found


BUILT_IN = tuple(
    Item(question=question, reference=reference, wrong=wrong)
    for question, reference, wrong in (
        (
            "Which planet is the largest of the solar system?",
            "Jupiter is the largest planet of the solar system.",
            "Mars is the largest planet of the solar system.",
        ),
        (
            "At which temperature does water boil at sea level?",
            "Water boils at 100 degrees Celsius at sea level.",
            "Water boils at 60 degrees Celsius at sea level.",
        ),
        (
            "Who wrote the play Hamlet?",
            "William Shakespeare wrote Hamlet.",
            "Charles Dickens wrote Hamlet.",
        ),
        (
            "What is the chemical symbol of gold?",
            "The chemical symbol of gold is Au.",
            "The chemical symbol of gold is Fe.",
        ),
        (
            "In which year did the Berlin Wall fall?",
            "The Berlin Wall fell in 1989.",
            "The Berlin Wall fell in 1975.",
        ),
        (
            "How many bones does an adult human have?",
            "An adult human has 206 bones.",
            "An adult human has 98 bones.",
        ),
        (
            "What is the capital of Australia?",
            "Canberra is the capital of Australia.",
            "Sydney is the capital of Australia.",
        ),
        (
            "Which gas do plants take up for photosynthesis?",
            "Plants take up carbon dioxide for photosynthesis.",
            "Plants take up nitrogen for photosynthesis.",
        ),
        (
            "How fast does light travel in a vacuum?",
            "Light travels at about 299,792 kilometres per second in a vacuum.",
            "Light travels at about 1,200 kilometres per second in a vacuum.",
        ),
        (
            "Which organ produces insulin?",
            "The pancreas produces insulin.",
            "The liver produces insulin.",
        ),
    )
)
"""For `accuracy@1` and rubrics like it."""
