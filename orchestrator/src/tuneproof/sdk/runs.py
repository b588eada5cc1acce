"""A training run, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

ENDED = frozenset({"succeeded", "failed", "cancelled"})
"""States that a run does not leave."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What is trained, on what, and how. A 0 or an empty text means the trainer's default."""

    adapter_name: str
    """1 to 63 characters of a-z, 0-9 and `-`, beginning with a letter."""
    data_path: str
    """JSON Lines of conversations, relative to the artifact store."""
    data_digest: str
    """`sha256:<hex>` of the file's bytes."""
    base_model: str = ""
    method: str = "qlora_nf4"
    """`qlora_nf4` or `lora`."""
    rank: int = 0
    alpha: float = 0.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    """Empty: every linear layer but the output."""
    skip_modules: tuple[str, ...] = ()
    """Module names (suffixes match) that stay unquantised."""
    epochs: float = 0.0
    max_steps: int = 0
    effective_batch_size: int = 0
    """Examples per optimiser step."""
    micro_batch_size: int = 0
    """Examples per forward pass."""
    learning_rate: float = 0.0
    schedule: str = "constant"
    """`constant`, `linear` or `cosine`."""
    warmup_ratio: float | None = None
    max_grad_norm: float = 0.0
    max_length: int = 0
    """Longest example in tokens; a longer one is refused."""
    seed: int = 0
    gradient_checkpointing: bool = False


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
    create_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None
    provenance: Mapping[str, str]

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
