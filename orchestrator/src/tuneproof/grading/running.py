"""Asks the judge for the grades that a file lacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from statistics import fmean

from tuneproof.grading.results import Results
from tuneproof.results import Grade
from tuneproof.sdk import BATCH_PENDING, GradeInput, JudgeClient
from tuneproof.servicekit.errors import InvalidInput, TuneproofError, Unavailable
from tuneproof.servicekit.retries import Patience, Retries, Sleep, may_pass

_RETRIES = Retries(first=0.5, longest=15.0, jitter=0.5)
_AWAY_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Score:
    """Of all answers, by one criterion or by words."""

    mean: float | None
    """Over the scored answers; None without any."""
    scored: int
    unscored: int
    """Answers whose grade has no mean."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What the file holds in the end."""

    graded: int
    failed: Mapping[str, str]
    """Why an answer has no grade, by its id."""
    scores: Mapping[str, Score]
    """By criterion; lexical scores too."""
    judge_model: str
    usage: Mapping[str, int]
    """Tokens and requests of all that is in the file."""
    price: float | None
    """None where the judge told none for some grade."""
    currency: str


async def grade_missing(
    judge: JudgeClient,
    inputs: Mapping[str, GradeInput],
    results: Results,
    *,
    in_flight: int = 32,
    tell: Callable[[], None] = lambda: None,
    sleep: Sleep = asyncio.sleep,
) -> dict[str, str]:
    """Grades what the file lacks; gives by id why an answer could not be graded.

    A judge, or an endpoint, that is away for less than two minutes is waited for. What waits for a
    batch is not: the next run finds it.

    Args:
        inputs: by id.
        tell: is called after each grade.

    Raises:
        Unavailable: it is away for longer.
        WrongState: see `Results`; or the judge cannot grade at all.
    """
    asking = _Asking(inputs, results, Patience(_RETRIES, _AWAY_SECONDS, sleep=sleep), tell)
    while not asking.done:
        asking.away = None
        try:
            async for name, outcome in judge.grade_many(asking.missing(), in_flight=in_flight):
                asking.take(name, outcome)
        except Unavailable as error:
            asking.away = error
        if asking.away is not None:
            await asking.patience.wait(asking.away)
    return asking.failed


@dataclass
class _Asking:
    inputs: Mapping[str, GradeInput]
    results: Results
    patience: Patience
    tell: Callable[[], None]
    failed: dict[str, str] = field(default_factory=dict)
    away: TuneproofError | None = None
    """Why no more is sent: what is under way is paid for, so the stream ends by itself."""

    @property
    def done(self) -> bool:
        return len(self.results.lines) + len(self.failed) == len(self.inputs)

    async def missing(self) -> AsyncIterator[tuple[str, GradeInput]]:
        for name, one in self.inputs.items():
            if self.away is not None:
                return
            if name not in self.results.lines and name not in self.failed:
                yield name, one

    def take(self, name: str, outcome: Grade | TuneproofError) -> None:
        if isinstance(outcome, Grade):
            self.results.add(name, outcome)
            self.patience.answered()
            self.tell()
        elif isinstance(outcome, InvalidInput) or outcome.reason == BATCH_PENDING:
            self.failed[name] = outcome.message
        elif may_pass(outcome):
            self.away = outcome
        else:
            raise outcome


def summary_of(results: Results, failed: Mapping[str, str]) -> Summary:
    """Of what is in the file."""
    scores: dict[str, list[float | None]] = {}
    lines = results.lines.values()
    for line in lines:
        means = {name: grade["mean"] for name, grade in line["criteria"].items()}
        for name, score in {**means, **line["lexical"]}.items():
            scores.setdefault(name, []).append(score)
    return Summary(
        graded=len(lines),
        failed=failed,
        scores={name: _score(each) for name, each in scores.items()},
        judge_model=next((line["judge_model"] for line in lines), ""),
        usage=results.cost.usage,
        price=results.cost.price,
        currency=results.cost.currency,
    )


def _score(given: list[float | None]) -> Score:
    scored = [each for each in given if each is not None]
    return Score(fmean(scored) if scored else None, len(scored), len(given) - len(scored))
