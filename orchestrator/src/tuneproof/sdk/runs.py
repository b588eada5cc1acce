"""A training run, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.servicekit.digests import sha256_of_json

ENDED = frozenset({"succeeded", "failed", "cancelled"})
"""States that a run does not leave."""

_DEFAULTS = Hyperparameters()

PRECISIONS = ("adapter_precision", "base_precision", "compute_precision")
"""Names of the facts in a run's provenance that tell the precision of its training."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What is trained, on what, and how."""

    adapter_name: str
    """1 to 63 characters of a-z, 0-9 and `-`, beginning with a letter."""
    data_path: str
    """JSON Lines of conversations, relative to the artifact store."""
    data_digest: str
    """`sha256:<hex>` of the file's bytes."""
    base_model: str = ""
    """As the trainer names it; empty: its only one."""
    seed: int = 0
    hyperparameters: Hyperparameters = _DEFAULTS
    """Those that are not set are left to the trainer."""
    validation_path: str = ""
    """Examples that only validate, relative to the artifact store; empty: see
    `Hyperparameters.validation_share`."""
    validation_digest: str = ""
    held_out_path: str = ""
    """Items that training must not see, relative to the artifact store: JSON Lines of `id`, `text`
    or `sha256`."""
    held_out_digest: str = ""
    allow_leakage: bool = False
    """Trains on examples that are held out, too."""

    @property
    def content_digest(self) -> str:
        """Hexadecimal digits that stand for the spec. Of data the content counts, not the path; of
        hyper-parameters those that are set."""
        given = self.hyperparameters.model_dump(mode="json", exclude_unset=True)
        content = {
            "adapter": self.adapter_name,
            "data": self.data_digest,
            "validation": self.validation_digest,
            "held_out": self.held_out_digest,
            "allow_leakage": self.allow_leakage,
            "base": self.base_model,
            "seed": self.seed,
            "hyperparameters": given,
        }
        return sha256_of_json(content).removeprefix("sha256:")


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run is."""

    step: int
    """Optimiser steps done."""
    total_steps: int
    loss: float
    """In nats per token, of the last logged step."""
    tokens_per_second: float
    eta_seconds: float


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run as its service knows it."""

    id: str
    spec: RunSpec
    """With every default filled in."""
    state: str
    """`queued`, `running`, `succeeded`, `failed`, `cancelled`."""
    reason: str
    """Why it failed; else empty."""
    progress: RunProgress
    adapter_ref: str
    """`name@sha256:<hex>`, once it succeeded."""
    losses: tuple[tuple[int, float], ...]
    """Pairs of step and loss in nats per token, oldest first."""
    validation_losses: tuple[tuple[int, float], ...]
    """Pairs of step and validation loss in nats per token, of the steps that were validated."""
    create_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None
    provenance: Mapping[str, str]
    phase: str = ""
    """What its worker does, as `loading`, `training` or `committing`."""
    attempt: int = 0
    """Counts the workers that were started for it."""
    checkpoint_step: int = 0
    """Of the newest checkpoint, from which another attempt goes on; 0: none."""
    warning: str = ""
    """What goes wrong without ending the run; else empty."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED

    @property
    def seconds(self) -> float:
        """From its start to its end; 0 while either is missing."""
        if self.start_time is None or self.end_time is None:
            return 0.0
        return (self.end_time - self.start_time).total_seconds()
