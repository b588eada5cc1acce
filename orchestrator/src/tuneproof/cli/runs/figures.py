"""What is told of a run, and what differs between runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tuneproof.sdk import RunInfo, RunSpec

_DIGEST = 19


@dataclass(frozen=True, slots=True)
class Figures:
    """How a run went, in numbers; None for what is not known."""

    loss: float | None
    """Of the last step, in nats per token of the answers."""
    validation_loss: float | None
    """Of the adapter that the run keeps, in nats per token of the validation answers."""
    tokens_per_second: float | None
    """Prompt and answer tokens: of the whole training, or while it goes on of the last step."""
    seconds: float | None
    """From the run's start to its end."""


def figures_of(run: RunInfo) -> Figures:
    """The numbers of a run; its losses must be there."""
    return Figures(
        loss=run.losses[-1][1] if run.losses else None,
        validation_loss=validation_loss_of(run),
        tokens_per_second=_tokens_per_second(run),
        seconds=run.seconds or None,
    )


def validation_loss_of(run: RunInfo) -> float | None:
    """Of the adapter that the run keeps: the last one, or with early stopping the lowest."""
    losses = [loss for _, loss in run.validation_losses if math.isfinite(loss)]
    if not losses:
        return None
    return min(losses) if run.spec.hyperparameters.early_stopping_patience else losses[-1]


def differing(runs: Sequence[RunInfo]) -> dict[str, list[Any]]:
    """Settings in which some runs differ, by name, with each run's value."""
    flat = [settings_of(run.spec) for run in runs]
    names = dict.fromkeys(name for each in flat for name in each)
    rows = {name: [each.get(name) for each in flat] for name in names}
    return {name: row for name, row in rows.items() if any(value != row[0] for value in row)}


def settings_of(spec: RunSpec) -> dict[str, Any]:
    """A run's settings by name, hyper-parameters among them; the data by its digest alone."""
    return {
        "base_model": spec.base_model,
        "adapter_name": spec.adapter_name,
        "data_digest": spec.data_digest,
        "validation_digest": spec.validation_digest,
        "held_out_digest": spec.held_out_digest,
        "allow_leakage": spec.allow_leakage,
        "seed": spec.seed,
        **spec.hyperparameters.model_dump(mode="json"),
    }


def smoothed(points: Sequence[tuple[int, float]], steps: int) -> tuple[tuple[int, float], ...]:
    """Each loss as the mean of the last steps, as many as are there."""
    losses = [loss for _, loss in points]
    return tuple(
        (step, fmean(losses[max(0, end - steps) : end])) for end, (step, _) in enumerate(points, 1)
    )


def _tokens_per_second(run: RunInfo) -> float | None:
    """By what the worker wrote down: the tokens of a row, times the rows it has seen."""
    facts = run.provenance
    try:
        seconds, rows = float(facts["train_seconds"]), int(facts["rows"])
        tokens = int(facts["prompt_tokens"]) + int(facts["answer_tokens"])
        seen = _rows_seen(run, rows, int(facts["steps"]))
    except (KeyError, ValueError):
        return run.progress.tokens_per_second or None
    return tokens / rows * seen / seconds if seconds and rows else None


def _rows_seen(run: RunInfo, rows: int, steps: int) -> float:
    """A pass ends with a smaller batch where the size does not divide the rows."""
    given = run.spec.hyperparameters
    batch = given.effective_batch_size
    a_pass = math.ceil(rows / batch)
    return steps // a_pass * rows + steps % a_pass * batch


def short_ref(ref: str) -> str:
    """A reference with the first digits of its digest, for tables."""
    name, at, digest = ref.partition("@")
    return f"{name}{at}{digest[:_DIGEST]}"


def words_of(value: Any) -> str:
    """A setting's value for people; a digest is shortened."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)[:_DIGEST] if str(value).startswith("sha256:") else str(value)
