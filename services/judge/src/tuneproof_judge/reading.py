"""One repeat: what is asked, how often, and what comes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from tuneproof.rubrics import Rubric
from tuneproof_judge.endpoint import ChatEndpoint
from tuneproof_judge.form import find_score, schema_of
from tuneproof_judge.grade import Failure, FailureKind, Repeat, Usage, Weights
from tuneproof_judge.joint import joint_digest, read_joint
from tuneproof_judge.pairs import PairReading, digest_of, read_choice
from tuneproof_judge.replies import CallFailed, Completion, cannot_go_on, no_probabilities
from tuneproof_judge.task import Sampling
from tuneproof_judge.weighting import weigh

_SEED_BITS = 31
_OF_CONTENT = frozenset(
    {FailureKind.NO_FORM, FailureKind.OUT_OF_RANGE, FailureKind.CUT_OFF, FailureKind.REFUSED}
)
"""Failures that another seed may not have; the endpoint's own were asked again already."""


@dataclass(frozen=True)
class _Joint:
    """One reading of a form with several rubrics."""

    seed: int
    outcomes: Sequence[int | Failure]
    completion: str = ""
    usage: Usage = field(default_factory=Usage)
    outage: bool = False
    earlier: tuple[Failure, ...] = ()
    refused: frozenset[str] = frozenset()

    @property
    def outcome(self) -> int | Failure:
        """A failure where one of them is."""
        failed = [each for each in self.outcomes if isinstance(each, Failure)]
        return failed[0] if failed else self.outcomes[0]


R = TypeVar("R", Repeat, PairReading, _Joint)


@dataclass(frozen=True)
class Reader:
    """Asks a judge model for repeats."""

    endpoint: ChatEndpoint
    sampling: Sampling
    deadline: float | None
    """The event loop's time after which no new attempt begins."""

    async def repeat(self, rubric: Rubric, prompt: str, index: int) -> Repeat:
        """One repeat: its first reading with a score, or the last without one.

        Raises:
            WrongState: the endpoint's set-up is broken, or it gives no probabilities.
        """
        return await self._again(
            rubric.digest, index, lambda seed: self._read(rubric, prompt, index, seed)
        )

    async def joint(self, rubrics: Sequence[Rubric], prompt: str, index: int) -> Sequence[Repeat]:
        """One repeat of a form with several rubrics, one for each; as `repeat`.

        What was spent stands with the first.
        """
        limit = sum(rubric.max_tokens for rubric in rubrics)

        async def read(seed: int) -> _Joint:
            try:
                completion = await self._ask(prompt, seed, max_tokens=limit)
            except CallFailed as failed:
                usage = Usage(requests=failed.requests)
                outcomes: list[int | Failure] = [failed.failure] * len(rubrics)
                return _Joint(seed, outcomes, usage=usage, outage=failed.outage)
            problem = problem_of(completion, limit)
            outcomes = [problem] * len(rubrics) if problem else read_joint(completion.text, rubrics)
            return _Joint(
                seed, outcomes, completion.text, completion.usage, refused=completion.refused
            )

        digest = joint_digest(rubrics[0], rubrics)
        found = await self._again(digest, index, read)
        return [
            Repeat(
                index,
                found.seed,
                outcome,
                found.completion,
                found.usage if number == 0 else Usage(),
                found.outage,
                found.earlier,
                refused=found.refused,
            )
            for number, outcome in enumerate(found.outcomes)
        ]

    async def compare(
        self, rubric: Rubric, prompt: str, index: int, *, reversed_order: bool
    ) -> PairReading:
        """One order of one repeat of a pair; as `repeat`."""

        async def read(seed: int) -> PairReading:
            try:
                completion = await self._ask(prompt, seed, max_tokens=rubric.max_tokens)
            except CallFailed as failed:
                usage = Usage(requests=failed.requests)
                return PairReading(seed, failed.failure, usage=usage, outage=failed.outage)
            outcome = problem_of(completion, rubric.max_tokens) or read_choice(
                completion.text, reversed_order=reversed_order
            )
            return PairReading(
                seed, outcome, completion.text, completion.usage, refused=completion.refused
            )

        order = "reversed" if reversed_order else "in order"
        return await self._again(f"{digest_of(rubric)}\n{order}", index, read)

    async def _again(self, digest: str, index: int, read: Callable[[int], Awaitable[R]]) -> R:
        """Reads with one seed after the other, up to the first outcome that a further one may not
        mend."""
        earlier: list[Failure] = []
        spent: list[Usage] = []
        for attempt in range(self.sampling.attempts):
            found = await read(seed_of(self.sampling.seed, digest, index, attempt))
            spent.append(found.usage)
            failure = found.outcome
            if not isinstance(failure, Failure) or failure.kind not in _OF_CONTENT:
                break
            earlier.append(failure)
        else:
            earlier.pop()
        # An endpoint that sends away a retry did accept the reading before it.
        outage = found.outage and len(spent) == 1
        return replace(found, usage=Usage.total(spent), earlier=tuple(earlier), outage=outage)

    async def _ask(self, prompt: str, seed: int, **more: Any) -> Completion:
        return await self.endpoint.complete(
            prompt,
            seed=seed,
            temperature=self.sampling.temperature,
            deadline=self.deadline,
            **more,
        )

    async def _read(self, rubric: Rubric, prompt: str, index: int, seed: int) -> Repeat:
        weighted = self.sampling.mode == "weighted"
        ask = partial(self._ask, prompt, seed, probabilities=weighted)
        spent: list[Usage] = []

        async def go_on(begun: str) -> Completion:
            try:
                more = await ask(max_tokens=1, begun=begun)
            except CallFailed as failed:
                if failed.passing:
                    raise
                raise cannot_go_on(self.endpoint.url) from None
            spent.append(more.usage)
            return more

        try:
            by_schema = self.endpoint.structured
            form = schema_of(rubric.scores, rubric.reasoning) if by_schema else None
            completion = await ask(max_tokens=rubric.max_tokens, form=form)
            spent.append(completion.usage)
            outcome = problem_of(completion, rubric.max_tokens) or find_score(
                completion.text, rubric.scores, rubric.reasoning
            )
            weights: Weights | Failure | None = None
            if weighted and not isinstance(outcome, Failure):
                if not completion.tokens:
                    raise no_probabilities(self.endpoint.url)
                weights = await weigh(completion, outcome, rubric.scores, go_on)
        except CallFailed as failed:
            spent.append(Usage(requests=failed.requests))
            usage = Usage.total(spent)
            return Repeat(index, seed, failed.failure, usage=usage, outage=failed.outage)
        usage = Usage.total(spent)
        if isinstance(weights, Failure):
            outcome, weights = weights, None
        score = outcome if isinstance(outcome, Failure) else outcome.score
        return Repeat(
            index, seed, score, completion.text, usage, weights=weights, refused=completion.refused
        )


def problem_of(completion: Completion, max_tokens: int) -> Failure | None:
    """Why a completion is not read at all."""
    if completion.refusal or completion.finish_reason == "content_filter":
        said = completion.refusal or "stopped by the endpoint's content filter"
        return Failure(FailureKind.REFUSED, said[:300])
    if completion.finish_reason == "length":
        return Failure(FailureKind.CUT_OFF, f"cut off at the rubric's max_tokens of {max_tokens}")
    return None


def seed_of(seed: int, digest: str, index: int, attempt: int = 0) -> int:
    """Of one reading: that of its repeat, and another one for each further attempt."""
    return seeds(seed, f"{digest}\nattempt {attempt}" if attempt else digest, index + 1)[index]


def seeds(seed: int, rubric_digest: str, count: int) -> list[int]:
    """The repeats' seeds: 31 bits, and equal for equal arguments.

    They follow each other, so that one request can ask for them all (`choices`). More repeats begin
    with the seeds of fewer. The rubric is part of the seed, so that two criteria do not share their
    luck.
    """
    digest = hashlib.sha256(f"{seed}\n{rubric_digest}".encode()).digest()
    first = int.from_bytes(digest[:4], "big") >> (32 - _SEED_BITS)
    return [(first + index) % (1 << _SEED_BITS) for index in range(count)]
