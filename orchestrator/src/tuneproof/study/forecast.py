"""What a study would do and take, before it does anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tuneproof.data.lengths import Tokenizer
from tuneproof.study.design.plan import Plan, PlannedCell
from tuneproof.study.state.store import State

FEW_CLUSTERS = 30
"""Test clusters below which intervals are wide, and their coverage is less sure."""
MOST_PRIMARY = 12
"""Primary comparisons above which a plan warns: each widens the intervals of all."""
RECIPE_SEEDS = 3
"""Fewest seeds for a statement about fine-tuning, as the report counts them."""
_LARGEST_SHARE = 0.5
"""Of the pool, that a draw may take before two seeds share most of it."""
_OF_CELLS = ("cells", "trainings", "answers", "judgements")
"""Counts of which each model has its own."""
_FRAME = 40
"""Tokens of instruction, numbers and chat template."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds that earlier runs with the same base model took, by piece; None: not known."""

    training: float | None = None
    """By example and epoch."""
    answers: float | None = None
    """By answer, of as many at once as the generator took."""
    grades: float | None = None
    """By graded answer."""


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """Tokens of prompts, with the embedder's tokens as the model's."""

    typical: int
    """With questions, references and passages of median length."""
    longest: int
    """With the longest of each."""


@dataclass(frozen=True)
class Forecast:
    """What a study would do."""

    counts: Mapping[str, int]
    hours: Mapping[str, float | None]
    """By stage; None where no earlier run in this state folder measured it."""
    tokens: Mapping[str, int]
    """Of trainings and prompts about, of answers at most; empty without the model's tokenizer."""
    warnings: tuple[str, ...]
    prices: Mapping[str, float] = field(default_factory=dict)
    """At most, by API model with known prices, in the currency of `costs`; its tokens are counted
    by the first base's tokenizer."""


def forecast(plan: Plan, rates: Rates, tokenizer: Tokenizer | None, primary: int) -> Forecast:
    """Counts what a plan would do.

    Args:
        primary: number of primary comparisons.
    """
    judge = plan.spec.judge
    given = sum(cell.arm.imported is not None for cell in plan.cells)
    graded = len(plan.cells) * len(plan.test)
    answers = graded - given * len(plan.test)
    grades = graded * len(judge.rubrics) * judge.repeats if judge else 0
    counts = {
        "documents": len(plan.dataset.documents),
        "tuning questions": len(plan.tuning),
        "test questions": len(plan.test),
        "test clusters": len({plan.clusters[item.id] for item in plan.test}),
        "cells": len(plan.cells),
        "trainings": len(plan.tuned),
        "answers": answers,
        "judgements": grades,
        "primary comparisons": primary,
    }
    epochs = {cell.name: _passes(cell) for cell in plan.tuned}
    pieces = {"training": sum(epochs.values()), "answers": answers, "grades": graded}
    hours = {}
    for stage, count in pieces.items():
        rate = getattr(rates, stage)
        hours[stage] = None if rate is None else rate * count / 3600
    prompts = _prompts(plan, tokenizer) if tokenizer else {}
    tokens = _tokens(plan, prompts, epochs)
    context = tokenizer.context if tokenizer else 0
    warnings = (*_of_draws(plan), *_of_design(plan, counts), *_of_length(plan, prompts, context))
    return Forecast(counts, hours, tokens, warnings)


def forecast_of_models(
    plan: Plan, known: Mapping[str, tuple[Rates, Tokenizer | None]], primary: int
) -> Forecast:
    """As `forecast`, of all models of a plan.

    Args:
        known: rates and tokenizer by base; an API model's tokens are counted by the first one's.
        primary: number of primary comparisons.
    """
    parts = {}
    for model, baseline in plan.baselines.items():
        # The grades are the judge's: all have its rate.
        rates, tokenizer = known[next(iter(known)) if baseline.is_api else model]
        rates = Rates(grades=rates.grades) if baseline.is_api else rates
        parts[model] = forecast(plan.part(model), rates, tokenizer, primary)
    found = list(parts.values())
    counts = dict(found[0].counts)
    for name in _OF_CELLS:
        counts[name] = sum(part.counts[name] for part in found)
    of_bases = [part for model, part in parts.items() if not plan.baselines[model].is_api]
    return Forecast(
        counts=counts,
        hours={
            "training": _sum_known([part.hours["training"] for part in of_bases]),
            "answers": _sum_known([part.hours["answers"] for part in of_bases]),
            "grades": _sum_known([part.hours["grades"] for part in found]),
        },
        tokens={
            name: sum(part.tokens.get(name, 0) for part in found)
            for name in found[0].tokens
            if all(part.tokens for part in found)
        },
        warnings=tuple(dict.fromkeys(text for part in found for text in part.warnings)),
        prices={
            api.name: (tokens["prompts"] * api.input_price + tokens["answers"] * api.output_price)
            / 1e6
            for api in plan.spec.apis
            if (tokens := parts[api.name].tokens)
            and api.input_price is not None
            and api.output_price is not None
        },
    )


def _sum_known(hours: Sequence[float | None]) -> float | None:
    """None where one is not known."""
    known = [each for each in hours if each is not None]
    return sum(known) if len(known) == len(hours) else None


def rates_of(state: State, model: str, judge: str) -> Rates:
    """What earlier runs of any study in a state folder took with a base model.

    Args:
        model: the name under which it is served.
        judge: the judge's model; empty: scores are by word overlap.
    """
    trained = [each for each in state.trainings() if each["spec"].get("base_model") == model]
    passes = sum(each["examples"] * _epochs(each["spec"]) for each in trained)
    seconds = sum(each["seconds"] for each in trained)
    return Rates(
        training=seconds / passes if passes and seconds else None,
        answers=state.rate("answers", model),
        grades=state.rate("grades", judge),
    )


def _epochs(spec: Mapping[str, object]) -> float:
    return float(str(spec.get("epochs", 0)))


def _passes(cell: PlannedCell) -> float:
    """Examples that a training sees, repetitions included."""
    values = cell.hyperparameters
    passes = len(cell.items) * values.epochs
    limit = values.max_steps * values.effective_batch_size
    return min(passes or limit, limit or passes)


def _prompts(plan: Plan, tokenizer: Tokenizer) -> dict[str, tuple[PromptTokens, PromptTokens]]:
    """Tokens of a prompt in serving, and of an example of tuning with its answer, by cell."""
    measured = _Measured(plan, tokenizer)
    return {
        cell.name: (measured.serving(cell), measured.example(cell))
        for cell in plan.cells
        if cell.arm.imported is None
    }


class _Measured:
    """Lengths of a plan's texts in tokens."""

    def __init__(self, plan: Plan, tokenizer: Tokenizer) -> None:
        items = [*plan.tuning, *plan.test]
        self._plan = plan
        self._questions = _lengths(tokenizer, {item.id: item.question for item in items})
        texts = {document.id: document.text for document in plan.dataset.documents}
        most = plan.spec.corpus.max_tokens
        words = plan.spec.prompt.passage_words
        documents = _lengths(tokenizer, texts)
        cut = most if words is None else min(most, 2 * words)
        self._passage = PromptTokens(min(documents.typical, cut), min(documents.longest, cut))
        self._answers = {
            style: _lengths(tokenizer, {i.id: i.references[style][0] for i in plan.tuning})
            for style in {
                part.references
                for cell in plan.cells
                for part in (cell.tune, cell.arm.examples)
                if part is not None
            }
        }

    def serving(self, cell: PlannedCell) -> PromptTokens:
        """Of a prompt of a cell."""
        examples = cell.arm.examples
        asked = self._prompt(cell.arm.context)
        if examples is None:
            return asked
        one = _sum(self._prompt(examples.context), self._answers[examples.references])
        return _sum(asked, *[one] * examples.k)

    def example(self, cell: PlannedCell) -> PromptTokens:
        """Of an example that a cell is tuned on; nothing where it is not tuned."""
        if cell.tune is None:
            return PromptTokens(0, 0)
        return _sum(self._prompt(cell.tune.context), self._answers[cell.tune.references])

    def _prompt(self, context: str) -> PromptTokens:
        passages = [self._passage] * self._plan.spec.retrieval.k if context == "retrieved" else []
        return _sum(PromptTokens(_FRAME, _FRAME), self._questions, *passages)


def _lengths(tokenizer: Tokenizer, texts: Mapping[str, str]) -> PromptTokens:
    found = tokenizer.lengths(texts)
    return PromptTokens(found.median, found.longest)


def _sum(*parts: PromptTokens) -> PromptTokens:
    return PromptTokens(sum(p.typical for p in parts), sum(p.longest for p in parts))


def _tokens(
    plan: Plan,
    prompts: Mapping[str, tuple[PromptTokens, PromptTokens]],
    passes: Mapping[str, float],
) -> dict[str, int]:
    if not prompts:
        return {}
    asked = sum(serving.typical for serving, _ in prompts.values()) * len(plan.test)
    learnt = sum(prompts[cell.name][1].typical * passes[cell.name] for cell in plan.tuned)
    most = len(plan.test) * sum(
        _longest_answer(plan, cell) for cell in plan.cells if cell.name in prompts
    )
    return {"training": round(learnt), "prompts": asked, "answers": most}


def _longest_answer(plan: Plan, cell: PlannedCell) -> int:
    own = plan.spec.api(cell.model).max_tokens if cell.is_api else None
    return own or plan.spec.generation.max_tokens


def _of_draws(plan: Plan) -> Iterator[str]:
    """Draws of pairs that cannot differ between seeds."""
    pool, seeds = len(plan.tuning), len(plan.spec.seeds)
    for size in sorted({cell.size for cell in plan.compared if cell.size}):
        share = size / pool
        if seeds > 1 and share == 1:
            yield (
                f"all {pool} tuning questions make one set of {size}: every seed draws the same,"
                " so seeds differ by the training's luck only"
            )
        elif seeds > 1 and share > _LARGEST_SHARE:
            yield (
                f"two seeds share about {share:.0%} of their {size} questions, because the pool has"
                f" {pool}: they differ less than new questions would"
            )


def _of_design(plan: Plan, counts: Mapping[str, int]) -> Iterator[str]:
    if counts["test clusters"] < FEW_CLUSTERS:
        yield (
            f"the test has {counts['test clusters']} clusters: below {FEW_CLUSTERS} intervals are"
            " wide, and below 10 there are none; raise split.test_share or take more documents"
        )
    if counts["primary comparisons"] > MOST_PRIMARY:
        yield (
            f"{counts['primary comparisons']} primary comparisons: each widens the intervals of"
            " all; name the few that decide in comparison.primary"
        )
    if plan.tuned and len(plan.spec.seeds) < RECIPE_SEEDS:
        yield (
            f"with {len(plan.spec.seeds)} of {RECIPE_SEEDS} seeds the verdicts are about these"
            " adapters, not about fine-tuning"
        )


def _of_length(
    plan: Plan, prompts: Mapping[str, tuple[PromptTokens, PromptTokens]], context: int
) -> Iterator[str]:
    """Prompts that the model, or the training, cannot read."""
    answer = plan.spec.generation.max_tokens
    for cell in plan.cells:
        if cell.name not in prompts or cell.is_api:
            continue
        serving, example = prompts[cell.name]
        if 0 < context < serving.longest + answer:
            yield (
                f"{cell.name}: a prompt with its answer takes up to about"
                f" {serving.longest + answer} tokens; the model reads {context}"
            )
        most = cell.hyperparameters.max_length
        if example.longest > most:
            yield (
                f"{cell.name}: an example takes up to about {example.longest} tokens; max_length is"
                f" {most}, and the trainer refuses longer ones"
            )
