"""How far a run is: a value for each optimiser step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One line of a run's metrics."""

    step: int
    """Optimiser steps done."""
    total_steps: int
    loss: float
    """Mean over the answers' tokens, in nats."""
    tokens_per_second: float
    """Prompt and answer tokens."""
    eta: float
    """Seconds to the end at the current speed."""
    validation_loss: float | None = None
    """After the step, in nats; None where it was not validated."""
