"""The judge's grades of labelled answers, kept in a file so that a killed run goes on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tuneproof.calibration.loading import LabelledAnswer, LabelledSet
from tuneproof.results import Grade
from tuneproof.rubrics import Rubric
from tuneproof.sdk import BATCH_PENDING, CompareInput, GradeInput, JudgeClient, PairComparison
from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import InvalidInput, TuneproofError, Unavailable, WrongState


@dataclass(frozen=True, slots=True)
class Asking:
    """How the judge is asked."""

    rubric: Rubric
    repeats: int = 10
    seed: int = 1
    temperature: float = 1.0
    mode: str = "sampled"
    in_flight: int = 32
    """Answers that the judge has and has not graded."""


Tell = Callable[[int, int], None]
"""Is given how many are done, of how many."""


@dataclass(frozen=True, slots=True)
class Graded:
    """What the judge gave one answer, or one pair."""

    judge_model: str
    mean: float | None
    """The grade; of a pair the preference for the second answer. None: unscored."""
    lexical: Mapping[str, float]
    position_bias: float | None = None
    """Of a pair."""
    means: Mapping[str, float | None] = field(default_factory=dict)
    """By criterion, of a form with several; `mean` is that of the first."""
    refused: Sequence[str] = ()
    """Parameters that the judge's endpoint refuses, and was asked without."""


def askable(labelled: LabelledSet, rubric: Rubric) -> tuple[LabelledAnswer, ...]:
    """The answers that have what the rubric reads."""
    return tuple(
        one
        for one in labelled.answers
        if (one.references or "reference" not in rubric.placeholders)
        and (one.passages or "passages" not in rubric.placeholders)
    )


async def grade_set(
    judge: JudgeClient,
    labelled: LabelledSet,
    asking: Asking,
    kept: Path,
    *,
    tell: Tell = lambda _done, _all: None,
) -> dict[str, Graded]:
    """Grades by the answers' ids; those that the file has are not asked for again.

    Args:
        kept: lines of JSON, one for each grade.
        tell: is given how many are done, of how many.

    Raises:
        WrongState: the file is of another judge.
        TuneproofError: an answer could not be graded; those before it are kept.
    """
    inputs = {
        one.id: _input(one, asking, asking.rubric) for one in askable(labelled, asking.rubric)
    }
    file = _Kept(kept, asking.rubric.digest, partial(_of_grade, asking.rubric))
    return await file.rest(
        inputs, lambda some: judge.grade_many(some, in_flight=asking.in_flight), tell
    )


async def grade_jointly(
    judge: JudgeClient,
    labelled: LabelledSet,
    asking: Asking,
    rubrics: Sequence[Rubric],
    kept: Path,
    *,
    tell: Tell = lambda _done, _all: None,
) -> dict[str, Graded]:
    """As `grade_set`, of all answers by all rubrics in one form."""
    inputs = {
        one.id: replace(_input(one, asking, *rubrics), joint=True) for one in labelled.answers
    }
    digest = sha256_of_json([rubric.digest for rubric in rubrics])
    file = _Kept(kept, digest, _of_form)
    return await file.rest(
        inputs, lambda some: judge.grade_many(some, in_flight=asking.in_flight), tell
    )


def _input(one: LabelledAnswer, asking: Asking, *rubrics: Rubric) -> GradeInput:
    return GradeInput(
        one.question, one.answer, one.references, one.passages,
        tuple(rubric.id for rubric in rubrics),
        asking.repeats, asking.seed, asking.temperature, asking.mode,
    )  # fmt: skip


async def compare_set(
    judge: JudgeClient,
    labelled: LabelledSet,
    asking: Asking,
    kept: Path,
    *,
    tell: Tell = lambda _done, _all: None,
) -> dict[str, Graded]:
    """As `grade_set`, of the pairs, in both orders; by `first second`."""
    answers = {one.id: one for one in labelled.answers}
    inputs = {}
    for pair in labelled.pairs:
        first, second = answers[pair.first], answers[pair.second]
        inputs[f"{pair.first} {pair.second}"] = CompareInput(
            first.question, first.answer, second.answer, first.references, first.passages,
            (asking.rubric.id,), asking.repeats, asking.seed, asking.temperature,
        )  # fmt: skip
    file = _Kept(kept, asking.rubric.digest, partial(_of_pair, asking.rubric))
    return await file.rest(
        inputs, lambda some: judge.compare_many(some, in_flight=asking.in_flight), tell
    )


@dataclass(frozen=True)
class _Kept:
    """The file of grades."""

    path: Path
    digest: str
    """Of the rubric, or of all."""
    read: Callable[[Any], Graded]
    """Makes a grade of what the judge said."""

    async def rest(
        self,
        inputs: Mapping[str, Any],
        ask: Callable[[Mapping[str, Any]], AsyncIterator[tuple[str, Any]]],
        tell: Tell,
    ) -> dict[str, Graded]:
        """All grades, after asking for those that the file lacks."""
        keys = {name: self._key(given) for name, given in inputs.items()}
        had = _read(self.path)
        found = {name: had[key] for name, key in keys.items() if key in had}
        missing = {name: one for name, one in inputs.items() if name not in found}
        if not missing:
            return found
        models = {one.judge_model for one in found.values()}
        pending: list[TuneproofError] = []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            async for name, outcome in ask(missing):
                if isinstance(outcome, TuneproofError):
                    if outcome.reason != BATCH_PENDING:
                        raise outcome
                    pending.append(outcome)
                    continue
                graded = self.read(outcome)
                if models - {graded.judge_model}:
                    raise WrongState(
                        f"{self.path} holds grades by {', '.join(sorted(models))}, and the judge"
                        f" now asks {graded.judge_model}: give another file, or start that judge"
                        " again"
                    )
                models = {graded.judge_model}
                found[name] = graded
                line = {"key": keys[name], "id": name, **_values(graded)}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
                tell(len(found), len(inputs))
        if pending:
            raise Unavailable(
                f"{len(pending)} of {len(inputs)} grades wait for a batch of the judge's endpoint:"
                f" give the same command again later ({pending[0].message})"
            )
        return found

    def _key(self, given: Any) -> str:
        return sha256_of_json([self.digest, asdict(given)])


def _values(graded: Graded) -> dict[str, Any]:
    return {
        "judge_model": graded.judge_model,
        "mean": graded.mean,
        "lexical": dict(graded.lexical),
        "position_bias": graded.position_bias,
        "means": dict(graded.means),
        "refused": list(graded.refused),
    }


def _read(path: Path) -> dict[str, Graded]:
    """The whole lines; what a killed run left of its last one is cut off."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    found: dict[str, Graded] = {}
    for number, line in enumerate(whole.decode().splitlines(), 1):
        try:
            values = json.loads(line)
            key = values.pop("key")
            values.pop("id")
            found[key] = Graded(**values)
        except (ValueError, KeyError, TypeError):
            raise InvalidInput(f"{path}:{number}: is not a grade") from None
    return found


def _of_grade(rubric: Rubric, grade: Grade) -> Graded:
    criterion = grade.criteria[rubric.criterion]
    if criterion.rubric_digest != rubric.digest:
        raise WrongState(
            f"the judge's rubric {rubric.id} is another one now: {criterion.rubric_digest}"
        )
    refused = criterion.refused_parameters
    return Graded(grade.judge_model, criterion.mean, grade.lexical, refused=refused)


def _of_form(grade: Grade) -> Graded:
    means = {name: one.mean for name, one in grade.criteria.items()}
    return Graded(grade.judge_model, next(iter(means.values())), grade.lexical, means=means)


def _of_pair(rubric: Rubric, found: PairComparison) -> Graded:
    pair = found.criteria[rubric.criterion]
    # The judge's preference is for the first answer, people's labels are for the second.
    preference = None if pair.preference is None else -pair.preference
    return Graded(found.judge_model, preference, {}, pair.position_bias)
