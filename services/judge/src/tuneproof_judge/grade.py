"""What the judge finds, as plain values."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import combinations
from typing import Protocol


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
class Pending(Failure):
    """None yet: a batch has not answered. A grade that has one is no grade."""


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
        each = tuple(parts)
        return cls(
            sum(one.prompt_tokens for one in each),
            sum(one.completion_tokens for one in each),
            sum(one.cached_tokens for one in each),
            sum(one.requests for one in each),
        )


@dataclass(frozen=True)
class Weights:
    """How probable each score was where a completion holds its score."""

    probabilities: Mapping[int, float]
    """By score of the scale; together above 0 and at most 1."""

    @property
    def outside(self) -> float:
        """What is left of 1: other tokens, and scores that the endpoint did not tell."""
        return max(0.0, 1.0 - sum(self.probabilities.values()))

    @property
    def expectation(self) -> float:
        """Σ p(s)·s over the scale, by Σ p(s) (G-Eval, Liu et al. 2023, section 2.3)."""
        total = sum(self.probabilities.values())
        return sum(score * share for score, share in self.probabilities.items()) / total


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
    earlier: tuple[Failure, ...] = ()
    """Readings without a score that came before, each with another seed."""
    weights: Weights | None = None
    """In the mode `weighted`, unless it failed."""
    refused: frozenset[str] = frozenset()
    """Parameters that the endpoint refuses, and was asked without."""

    @property
    def value(self) -> float | None:
        """What goes into the mean: the score, or the expected score; None where it failed."""
        if isinstance(self.outcome, Failure):
            return None
        return self.weights.expectation if self.weights else float(self.outcome)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """All readings without a score."""
        return (*self.earlier, *([self.outcome] if isinstance(self.outcome, Failure) else ()))


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
    mode: str = "sampled"
    """`sampled` or `weighted`."""
    conditional: bool = False
    """The weights hold for the reasons that came before them."""
    judge_model: str = ""
    """Its name at the endpoint."""

    @property
    def scores(self) -> list[int]:
        """Of the repeats that could be scored."""
        return [repeat.outcome for repeat in self.repeats if isinstance(repeat.outcome, int)]

    @property
    def scored_repeats(self) -> int:
        """How many could be scored."""
        return len(self.scores)

    @property
    def failures(self) -> Mapping[str, int]:
        """All readings without a score, by kind, those that were asked again included."""
        return Counter(one.kind.value for each in self.repeats for one in each.failures)

    @property
    def refused_parameters(self) -> list[str]:
        """Of all repeats."""
        return refused_in(self.repeats)

    @property
    def outside(self) -> float | None:
        """Mean probability outside the scale, over the weighted repeats."""
        found = [each.weights.outside for each in self.repeats if each.weights]
        return statistics.fmean(found) if found else None

    @property
    def _values(self) -> list[float]:
        return [each.value for each in self.repeats if each.value is not None]

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
        return statistics.fmean(self._values) if self.scored else None

    @property
    def standard_deviation(self) -> float | None:
        """Sample standard deviation (n - 1); None where unscored, or with one scored repeat."""
        return statistics.stdev(self._values) if self.scored and len(self.scores) > 1 else None


@dataclass(frozen=True)
class JuryGrade:
    """One criterion's grade on one answer by several judges."""

    jurors: Sequence[CriterionGrade]
    """In the jury's order, all by one rubric."""
    width: int
    """Of the rubric's scale: its highest score less its lowest."""

    @property
    def rubric(self) -> str:
        """Of all jurors, as the next four."""
        return self.jurors[0].rubric

    @property
    def rubric_digest(self) -> str:
        """Of its content."""
        return self.jurors[0].rubric_digest

    @property
    def criterion(self) -> str:
        """As the report's column."""
        return self.jurors[0].criterion

    @property
    def mode(self) -> str:
        """`sampled` or `weighted`."""
        return self.jurors[0].mode

    @property
    def conditional(self) -> bool:
        """The weights hold for the reasons that came before them."""
        return self.jurors[0].conditional

    @property
    def repeats(self) -> list[Repeat]:
        """Of all jurors, one after the other."""
        return [repeat for each in self.jurors for repeat in each.repeats]

    @property
    def means(self) -> list[float]:
        """Of the jurors that have one."""
        return [each.mean for each in self.jurors if each.mean is not None]

    @property
    def scored(self) -> bool:
        """Whether at least half of the jurors have a grade."""
        return 2 * len(self.means) >= len(self.jurors)

    @property
    def mean(self) -> float | None:
        """Of the jurors' means; None where the grade is unscored."""
        return statistics.fmean(self.means) if self.scored else None

    @property
    def standard_deviation(self) -> float | None:
        """Of the jurors' means; None where unscored, or with one scored juror."""
        return statistics.stdev(self.means) if self.scored and len(self.means) > 1 else None

    @property
    def agreement(self) -> float | None:
        """1 less the mean distance of two jurors' means, as a share of the scale."""
        apart = [abs(one - other) for one, other in combinations(self.means, 2)]
        return 1.0 - statistics.fmean(apart) / self.width if apart and self.scored else None

    @property
    def scored_repeats(self) -> int:
        """Of all jurors."""
        return sum(each.scored_repeats for each in self.jurors)

    @property
    def lost_repeats(self) -> int:
        """Of all jurors."""
        return sum(each.lost_repeats for each in self.jurors)

    @property
    def refused_parameters(self) -> list[str]:
        """Of all jurors."""
        return refused_in(self.repeats)

    @property
    def failures(self) -> Mapping[str, int]:
        """Of all jurors."""
        counts: Counter[str] = Counter()
        for each in self.jurors:
            counts.update(each.failures)
        return counts


class _Asked(Protocol):
    @property
    def refused(self) -> frozenset[str]: ...


def refused_in(readings: Iterable[_Asked]) -> list[str]:
    """The parameters that were left out of some of them."""
    return sorted({name for each in readings for name in each.refused})


@dataclass(frozen=True)
class LexicalScores:
    """Scores that need no judge, the best over the references; by words from 0 to 1."""

    exact_match: float
    token_f1: float
    rouge_l: float
    embedding_similarity: float | None = None
    """-1 to 1, as the next; None unless the judge has such a model, and it takes the texts."""
    bert_score: float | None = None


@dataclass(frozen=True)
class Grade:
    """Everything that the judge says about one answer."""

    criteria: Sequence[CriterionGrade | JuryGrade]
    """In the order of the request's rubrics."""
    lexical: LexicalScores | None
    """None without references."""
    judge_model: str
    """Its name at the endpoint; empty when no model was asked."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time by stage: `lexical`, `judge`."""

    @property
    def usage(self) -> Usage:
        """Over all criteria and repeats."""
        return Usage.total(used for _, used in self.usage_by_model)

    @property
    def usage_by_model(self) -> list[tuple[str, Usage]]:
        """Over the repeats of each criterion and judge, with the judge's model."""
        return [
            (one.judge_model, Usage.total(repeat.usage for repeat in one.repeats))
            for each in self.criteria
            for one in (each.jurors if isinstance(each, JuryGrade) else (each,))
        ]
