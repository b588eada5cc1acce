"""What the judge finds, as plain values."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from enum import StrEnum


class FailureKind(StrEnum):
    """Why a repeat is lost."""

    NO_FORM = "no_form"
    """The completion holds no score, several, or text after the score."""
    OUT_OF_RANGE = "out_of_range"
    """There is a number, but it is not on the rubric's scale."""
    CUT_OFF = "cut_off"
    """The completion was cut off at max_tokens."""
    REFUSED = "refused"
    """The endpoint refused to answer for reasons of content."""
    TIMEOUT = "timeout"
    """The endpoint did not answer in time, after retries."""
    ENDPOINT = "endpoint"
    """The endpoint failed, after retries."""


@dataclass(frozen=True)
class Failure:
    """One repeat's failure."""

    kind: FailureKind
    detail: str
    """A sentence for a person; never holds the endpoint's key."""


@dataclass(frozen=True)
class Usage:
    """What was asked of the endpoint."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the endpoint reports as cached; 0 where it does not say."""
    requests: int = 0
    """HTTP requests, retries included."""

    @classmethod
    def total(cls, parts: Iterable[Usage]) -> Usage:
        """The sum of several."""
        return cls(*(sum(numbers) for numbers in zip(*map(astuple, parts), strict=True)))


@dataclass(frozen=True)
class Repeat:
    """One sampled judgement."""

    index: int
    """From 0."""
    seed: int
    """What the endpoint sampled with, 31 bits."""
    outcome: int | Failure
    """The score, or why there is none."""
    completion: str = ""
    """The judge's whole text; empty where none came."""
    usage: Usage = Usage()
    outage: bool = False
    """Whether the endpoint accepted none of the attempts."""


@dataclass(frozen=True)
class CriterionGrade:
    """One criterion's grade on one answer."""

    rubric: str
    """The rubric's id, as `accuracy@1`."""
    rubric_digest: str
    """`sha256:<hex>` of the rubric's content."""
    criterion: str
    repeats: Sequence[Repeat]
    """In the order of their index, the lost ones included."""

    @property
    def scores(self) -> list[int]:
        """Of the repeats that could be scored."""
        return [repeat.outcome for repeat in self.repeats if isinstance(repeat.outcome, int)]

    @property
    def lost_repeats(self) -> int:
        """How many could not be scored."""
        return len(self.repeats) - len(self.scores)

    @property
    def scored(self) -> bool:
        """Whether at least half of the repeats could be scored.

        A smaller rest is not a fair sample: a judge that breaks its form mostly on bad answers
        would be kind to them.
        """
        return bool(self.scores) and 2 * len(self.scores) >= len(self.repeats)

    @property
    def mean(self) -> float | None:
        """Over the scored repeats; None where the grade is unscored, which is not 0."""
        return statistics.fmean(self.scores) if self.scored else None

    @property
    def standard_deviation(self) -> float | None:
        """Sample standard deviation (n - 1); None where unscored, or with one scored repeat."""
        return statistics.stdev(self.scores) if self.scored and len(self.scores) > 1 else None


@dataclass(frozen=True)
class LexicalScores:
    """Scores by words, each from 0 to 1, the best over the references."""

    exact_match: float
    token_f1: float
    rouge_l: float


@dataclass(frozen=True)
class Grade:
    """Everything that the judge says about one answer."""

    criteria: Sequence[CriterionGrade]
    """In the order of the request's rubrics."""
    lexical: LexicalScores
    judge_model: str
    """Its name at the endpoint; empty when no model was asked."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time by stage: `lexical`, `judge`."""

    @property
    def usage(self) -> Usage:
        """Over all criteria and repeats."""
        return Usage.total(repeat.usage for each in self.criteria for repeat in each.repeats)
