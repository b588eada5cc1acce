"""What a caller asks the judge for, and its limits.

Sampling     how often and how a rubric is asked
GradeTask    one answer to grade
CompareTask  two answers, of which one may be better
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuneproof.rubrics import Rubric
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_judge.prompt import Subject

MAX_CHARACTERS = 100_000
"""Longest question, answer, reference or passage."""
MAX_TEXTS = 100
"""Most references, and most passages."""
MAX_RUBRICS = 20
MAX_REPEATS = 100
MAX_RETRIES = 5
MODES = ("sampled", "weighted")


@dataclass(frozen=True)
class Sampling:
    """How a rubric is asked."""

    repeats: int = 10
    """1 to 100, for each rubric."""
    seed: int = 0
    """Each repeat's seed is derived from it."""
    temperature: float = 1.0
    """0 to 2."""
    retries: int = 0
    """0 to 5: how often a repeat without a score is asked again."""
    mode: str = "sampled"
    """`sampled` or `weighted`."""

    @property
    def attempts(self) -> int:
        """Most readings for one repeat; at temperature 0 another seed changes nothing."""
        return 1 + (self.retries if self.temperature > 0 else 0)

    def of(self, rubric: Rubric) -> Sampling:
        """As one rubric needs it: probabilities that hang on no sampled reasons are asked once."""
        if self.mode == "weighted" and rubric.reasoning != "before":
            return replace(self, repeats=1, temperature=0.0)
        return self

    def check(self) -> None:
        """Checks all limits.

        Raises:
            InvalidInput: naming the field and the limit.
        """
        if not 1 <= self.repeats <= MAX_REPEATS:
            raise InvalidInput(
                f"repeats is {self.repeats}, not 1 to {MAX_REPEATS}", field="repeats"
            )
        if not (math.isfinite(self.temperature) and 0 <= self.temperature <= 2):
            raise InvalidInput(
                f"temperature is {self.temperature}, not 0 to 2", field="temperature"
            )
        if not 0 <= self.retries <= MAX_RETRIES:
            raise InvalidInput(
                f"retries is {self.retries}, not 0 to {MAX_RETRIES}", field="retries"
            )
        if self.mode not in MODES:
            raise InvalidInput(
                f"mode is {self.mode!r}, not one of {', '.join(MODES)}", field="mode"
            )


@dataclass(frozen=True)
class GradeTask:
    """One answer to grade."""

    subject: Subject
    rubrics: tuple[str, ...] = ()
    """Ids. None means lexical scores only."""
    repeats: int = 10
    seed: int = 0
    temperature: float = 1.0
    retries: int = 0
    mode: str = "sampled"
    settled_after: int = 0
    """Once so many first repeats have one score, no more are asked; 0: all are."""
    joint: bool = False
    """All rubrics in one form."""

    @property
    def sampling(self) -> Sampling:
        """How each rubric is asked."""
        return Sampling(self.repeats, self.seed, self.temperature, self.retries, self.mode)

    def check(self, rubrics: Sequence[Rubric]) -> None:
        """Checks all limits, and that what the rubrics read is there.

        Raises:
            InvalidInput: naming the field and the limit.
        """
        _check_rubrics(self.rubrics)
        self.sampling.check()
        if self.settled_after == 1 or not 0 <= self.settled_after <= MAX_REPEATS:
            raise InvalidInput(
                f"settled_after is {self.settled_after}, not 0, or 2 to {MAX_REPEATS}",
                field="settled_after",
            )
        if self.joint and self.mode != "sampled":
            raise InvalidInput("joint goes with the mode sampled only", field="joint")
        if not rubrics and not self.subject.references:
            raise InvalidInput("references is empty; give at least one", field="references")
        check_subject(self.subject, rubrics)


@dataclass(frozen=True)
class CompareTask:
    """Two answers to compare."""

    first: Subject
    second: Subject
    """As the first, with another answer."""
    rubrics: tuple[str, ...]
    """Ids, at least one."""
    repeats: int = 10
    seed: int = 0
    temperature: float = 1.0
    retries: int = 0

    @property
    def sampling(self) -> Sampling:
        """The last four fields."""
        return Sampling(self.repeats, self.seed, self.temperature, self.retries)

    def check(self, rubrics: Sequence[Rubric]) -> None:
        """As `GradeTask.check`."""
        _check_rubrics(self.rubrics)
        if not rubrics:
            raise InvalidInput("rubrics is empty; name at least one", field="rubrics")
        self.sampling.check()
        check_subject(self.first, rubrics, answer="first")
        check_subject(self.second, rubrics, answer="second")


def check_subject(subject: Subject, rubrics: Sequence[Rubric], *, answer: str = "answer") -> None:
    """Checks the texts' limits, and that what the rubrics read is there.

    Args:
        answer: what the caller calls the answer.

    Raises:
        InvalidInput: naming the field, and the limit or the rubric.
    """
    for number, reference in enumerate(subject.references):
        if not reference.strip():
            raise InvalidInput(f"references[{number}] is blank", field="references")
    for name, texts in (
        ("question", (subject.question,)),
        (answer, (subject.answer,)),
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
    for rubric in rubrics:
        for placeholder, field, given in (
            ("question", "question", subject.question),
            ("passages", "passages", "".join(subject.passages)),
            ("reference", "references", "".join(subject.references)),
        ):
            if placeholder in rubric.placeholders and not given.strip():
                state = "empty" if field == "references" else "blank"
                more = "; give at least one" if field == "references" else ""
                raise InvalidInput(
                    f"{field} is {state}, but the rubric {rubric.id} reads it{more}", field=field
                )


def _check_rubrics(ids: Sequence[str]) -> None:
    if len(ids) > MAX_RUBRICS or len(set(ids)) < len(ids):
        raise InvalidInput(f"rubrics must be at most {MAX_RUBRICS} different ids", field="rubrics")
