"""What answers are measured by: a judge's criterion or another number, with its range."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measure:
    """A number that every answer may have. Higher is better, except for the answer's length."""

    name: str
    """As the study file and the JSON write it: a criterion, or `token_f1`."""
    low: float
    """Lowest value, in the measure's unit."""
    high: float | None
    """Highest value; None without an upper end."""
    unit: str
    """What it is counted in, as `points`."""
    decimals: int = 2
    """Decimals of a mean as shown, unless a verdict needs more."""

    def __post_init__(self) -> None:
        if self.high is not None and not self.low < self.high:
            raise ValueError(f"the measure {self.name} runs from {self.low} to {self.high}")

    @property
    def limits(self) -> tuple[float, float] | None:
        """Lowest and highest difference of two values; None without an upper end."""
        return None if self.high is None else (self.low - self.high, self.high - self.low)

    @property
    def words(self) -> str:
        """Unit and range for people: `points, 1 to 5`."""
        if self.high is None:
            return self.unit
        return f"{self.unit}, {self.low:g} to {self.high:g}"


LEXICAL = (
    *(Measure(name, 0.0, 1.0, "share") for name in ("exact_match", "token_f1", "rouge_l")),
    *(Measure(name, -1.0, 1.0, "cosine") for name in ("embedding_similarity", "bert_score")),
)
"""Likeness to the references, which needs no judge: by words, and by models where there are any."""

ANSWER_WORDS = Measure("answer_words", 0.0, None, "words", 1)
"""Length of the answer: runs of characters between blanks. Longer is neither better nor worse."""
