"""The memory of a training on its device, from the hyper-parameters and the base's shapes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.adapters.memory import TrainingMemory, training_memory

_SMALL_STATE = "paged_adamw_8bit"


def value_bytes(asked: Hyperparameters, *, on_gpu: bool) -> int:
    """Bytes of a value in the precision of the computation."""
    auto = "bf16" if on_gpu else "fp32"
    return 2 if (auto if asked.precision == "auto" else asked.precision) == "bf16" else 4


def needed(
    config: dict[str, Any],
    asked: Hyperparameters,
    *,
    on_gpu: bool,
    tokens: int | None = None,
    answer_tokens: int | None = None,
) -> TrainingMemory | None:
    """What a training takes on each device; None for a base of an unknown architecture.

    Args:
        config: the base's config.json.
        asked: with its micro-batch.
        tokens: of the longest row; `max_length` where the data is not known.
        answer_tokens: of the longest answer; by default a row is all answer.
    """
    return training_memory(
        config,
        asked,
        value_bytes=value_bytes(asked, on_gpu=on_gpu),
        moment_bytes=2 if asked.optimizer == _SMALL_STATE else 8,
        tokens=tokens,
        answer_tokens=answer_tokens,
        on_gpu=on_gpu,
    )


def parts_of(memory: TrainingMemory) -> dict[str, int]:
    """Bytes by part that add up to the peak, the largest first."""
    parts = asdict(memory)
    # They are not there at the same time.
    smaller = min("backward", "logits", key=lambda name: parts[name])
    del parts[smaller]
    return dict(sorted(parts.items(), key=lambda part: -part[1]))
