"""What is to be trained."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Method(StrEnum):
    """How the base is held while the adapter is trained."""

    QLORA_NF4 = "qlora_nf4"
    """In 4-bit NormalFloat with double quantisation."""
    LORA = "lora"
    """As it is."""


class Schedule(StrEnum):
    """How the learning rate goes after the warm-up; transformers' own names."""

    CONSTANT = "constant_with_warmup"
    LINEAR = "linear"
    COSINE = "cosine"


class RunSpec(BaseModel):
    """The spec of a run. Zero and empty mean the default until `completion.complete` fills it in;
    field by field see trainer.proto."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_model: str = ""
    data_path: str = ""
    """Relative to the artifact store."""
    data_digest: str = ""
    adapter_name: str = ""
    method: Method = Method.QLORA_NF4
    rank: int = 0
    alpha: float = 0.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    """Sorted; empty means every linear layer but the output."""
    skip_modules: tuple[str, ...] = ()
    """Sorted names that stay unquantised; suffixes of the modules' names match."""
    epochs: float = 0.0
    max_steps: int = 0
    effective_batch_size: int = 0
    micro_batch_size: int = 0
    learning_rate: float = 0.0
    schedule: Schedule = Schedule.CONSTANT
    warmup_ratio: float = 0.03
    max_grad_norm: float = 0.0
    max_length: int = 0
    """Tokens."""
    seed: int = 0
    gradient_checkpointing: bool = False

    @property
    def accumulation(self) -> int:
        """Forward passes per optimiser step."""
        return self.effective_batch_size // self.micro_batch_size

    def steps_for(self, examples: int) -> int:
        """Optimiser steps over so many examples: the passes, cut at `max_steps`."""
        forward_passes = -(-examples // self.micro_batch_size)
        per_epoch = -(-forward_passes // self.accumulation)
        if not self.epochs:
            return self.max_steps
        steps = max(1, round(self.epochs * per_epoch))
        return min(steps, self.max_steps) if self.max_steps else steps
