"""What a caller asks the judge for, and its limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuneproof.rubrics import Rubric
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_judge.prompt import Subject

MAX_CHARACTERS = 100_000
"""Longest question, answer, reference or passage."""
MAX_TEXTS = 100
"""Most references, and most passages."""
MAX_RUBRICS = 20
MAX_REPEATS = 100


@dataclass(frozen=True)
class GradeTask:
    """One answer to grade."""

    subject: Subject
    rubrics: tuple[str, ...] = ()
    """Ids. None means lexical scores only."""
    repeats: int = 10
    """1 to 100, for each rubric."""
    seed: int = 0
    """Each repeat's seed is derived from it."""
    temperature: float = 1.0
    """0 to 2."""

    def check(self) -> None:
        """Checks all limits.

        Raises:
            InvalidInput: naming the field and the limit.
        """
        self._check_texts()
        if len(self.rubrics) > MAX_RUBRICS or len(set(self.rubrics)) < len(self.rubrics):
            raise InvalidInput(
                f"rubrics must be at most {MAX_RUBRICS} different ids", field="rubrics"
            )
        if not 1 <= self.repeats <= MAX_REPEATS:
            raise InvalidInput(
                f"repeats is {self.repeats}, not 1 to {MAX_REPEATS}", field="repeats"
            )
        if not (math.isfinite(self.temperature) and 0 <= self.temperature <= 2):
            raise InvalidInput(
                f"temperature is {self.temperature}, not 0 to 2", field="temperature"
            )

    def check_for(self, rubric: Rubric) -> None:
        """Checks that what a rubric reads is there.

        Raises:
            InvalidInput: naming the field and the rubric.
        """
        subject = self.subject
        read = {"question": subject.question, "passages": "".join(subject.passages)}
        for name, given in read.items():
            if name in rubric.placeholders and not given.strip():
                raise InvalidInput(
                    f"{name} is blank, but the rubric {rubric.id} reads it", field=name
                )

    def _check_texts(self) -> None:
        subject = self.subject
        if not subject.references:
            raise InvalidInput("references is empty; give at least one", field="references")
        for number, reference in enumerate(subject.references):
            if not reference.strip():
                raise InvalidInput(f"references[{number}] is blank", field="references")
        for name, texts in (
            ("question", (subject.question,)),
            ("answer", (subject.answer,)),
            ("references", subject.references),
            ("passages", subject.passages),
        ):
            if len(texts) > MAX_TEXTS:
                raise InvalidInput(
                    f"{name} holds {len(texts)} texts; the most is {MAX_TEXTS}", field=name
                )
            longest = max(map(len, texts), default=0)
            if longest > MAX_CHARACTERS:
                raise InvalidInput(
                    f"{name} has {longest:,} characters; the most is {MAX_CHARACTERS:,}."
                    " The judge refuses longer texts and never cuts them: a cut text is another",
                    field=name,
                )
