"""What a study would do and take, before it does anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.adapters.memory import USABLE, TrainingMemory, micro_batches, training_memory
from tuneproof.data.lengths import Tokenizer
from tuneproof.study.advice import GPU_GIB, of_design, of_draws, of_length, of_memory
from tuneproof.study.design.plan import Plan, PlannedCell
from tuneproof.study.design.spec import StudySpec
from tuneproof.study.state.store import State
from tuneproof.study.tokens import CellTokens, tokens_by_cell

BASE_MODEL = "the base model"
"""What a study's only base is called that it gives no name."""
_OF_CELLS = ("cells", "trainings", "answers", "judgements")
"""Counts of which each model has its own."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds that earlier runs with the same base model took, by piece; None: not known."""

    training: float | None = None
    """By example and epoch."""
    answers: float | None = None
    """By answer, of as many at once as the generator took."""
    grades: float | None = None
    """By graded answer."""


@dataclass(frozen=True)
class Forecast:
    """What a study would do."""

    counts: Mapping[str, int]
    hours: Mapping[str, float | None]
    """By stage; None where no earlier run in this state folder measured it."""
    tokens: Mapping[str, int]
    """Of trainings and prompts about, of answers at most; empty without the model's tokenizer."""
    warnings: tuple[str, ...]
    memory: Mapping[str, TrainingMemory] = field(default_factory=dict)
    """On the GPU, by tuned cell; without those whose base's config.json is not known."""
    prices: Mapping[str, float] = field(default_factory=dict)
    """At most, by model, in the currency of `costs`; see `_price`."""


def forecast(plan: Plan, rates: Rates, tokenizer: Tokenizer | None, primary: int) -> Forecast:
    """Counts what a plan would do.

    Args:
        primary: number of primary comparisons.
    """
    judge = plan.spec.judge
    given = sum(cell.arm.imported is not None for cell in plan.cells)
    graded = len(plan.cells) * len(plan.test)
    answers = graded - given * len(plan.test)
    forms = 0 if judge is None else 1 if judge.joint else len(judge.rubrics)
    grades = graded * forms * judge.repeats if judge else 0
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
    if judge and judge.compare:
        # Each primary comparison is one of two cells by one criterion, asked in both orders.
        counts["choices between answers"] = 2 * judge.compare * primary * len(plan.test)
    epochs = {cell.name: _passes(cell) for cell in plan.tuned}
    pieces = {"training": sum(epochs.values()), "answers": answers, "grades": graded}
    hours = {}
    for stage, count in pieces.items():
        rate = getattr(rates, stage)
        known = rate is not None or not count
        hours[stage] = (rate or 0.0) * count / 3600 if known else None
    by_cell = tokens_by_cell(plan, tokenizer) if tokenizer else {}
    memory = _memory(plan, by_cell, tokenizer)
    warnings = (
        *of_draws(plan),
        *of_design(plan, counts),
        *of_length(plan, by_cell, tokenizer.context if tokenizer else 0),
        *of_memory(plan, memory),
    )
    return Forecast(counts, hours, _tokens(plan, by_cell, epochs), warnings, memory)


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
        memory={cell: taken for part in found for cell, taken in part.memory.items()},
        prices={
            model or BASE_MODEL: price
            for model, part in parts.items()
            if (price := _price(plan.spec, model, part)) is not None
        },
    )


def _price(spec: StudySpec, model: str, part: Forecast) -> float | None:
    """What a model's answers cost at the prices of the study file: by tokens (an API model's are
    counted by the first base's tokenizer), or by the hours of GPUs, its trainings' included. None
    where prices, tokens or hours are not known."""
    api = next((each for each in spec.apis if each.name == model), None)
    given, written = spec.costs.prompt_tokens, spec.costs.completion_tokens
    if api is not None:
        given, written = api.input_price, api.output_price
    if given is not None and written is not None:
        if not part.tokens:
            return None
        return (part.tokens["prompts"] * given + part.tokens["answers"] * written) / 1e6
    hours = _sum_known([part.hours["training"], part.hours["answers"]])
    if api is not None or spec.costs.gpu_hour is None or hours is None:
        return None
    return hours * spec.costs.gpu_hour


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


def _memory(
    plan: Plan, tokens: Mapping[str, CellTokens], tokenizer: Tokenizer | None
) -> dict[str, TrainingMemory]:
    """Of each training on a GPU, by the longest of its examples where these are known."""
    config = dict(tokenizer.config) if tokenizer else {}
    found = {}
    for cell in plan.tuned:
        most, values = tokens.get(cell.name), cell.hyperparameters
        length = min(most.example.longest, values.max_length) if most else None
        answer = most.answer.longest if most else None
        taken = None
        for tried in _settings(values):
            taken = training_memory(config, tried, tokens=length, answer_tokens=answer)
            if taken is None or taken.gib <= USABLE * GPU_GIB:
                break
        if taken is not None:
            found[cell.name] = taken
    return found


def _settings(asked: Hyperparameters) -> Iterator[Hyperparameters]:
    """Those that a trainer would try on a GPU, the one with most memory first: where they leave
    the micro-batch open, it takes the largest that fits, with checkpointing if nothing else
    does."""
    if asked.micro_batch_size:
        yield asked
        return
    for checkpointing in dict.fromkeys((asked.gradient_checkpointing, True)):
        for size in micro_batches(asked.effective_batch_size):
            tried = {"micro_batch_size": size, "gradient_checkpointing": checkpointing}
            yield asked.model_copy(update=tried)


def _tokens(
    plan: Plan,
    tokens: Mapping[str, CellTokens],
    passes: Mapping[str, float],
) -> dict[str, int]:
    if not tokens:
        return {}
    asked = sum(each.serving.typical for each in tokens.values()) * len(plan.test)
    learnt = sum(tokens[cell.name].example.typical * passes[cell.name] for cell in plan.tuned)
    most = len(plan.test) * sum(
        _longest_answer(plan, cell) for cell in plan.cells if cell.name in tokens
    )
    return {"training": round(learnt), "prompts": asked, "answers": most}


def _longest_answer(plan: Plan, cell: PlannedCell) -> int:
    own = plan.spec.api(cell.model).max_tokens if cell.is_api else None
    return own or plan.spec.generation.max_tokens
