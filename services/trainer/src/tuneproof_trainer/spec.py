"""What is to be trained."""

from __future__ import annotations

from pydantic import BaseModel

from tuneproof.adapters.hyperparameters import Hyperparameters


class RunSpec(BaseModel, frozen=True, extra="forbid"):
    """The spec of a run; field by field see trainer.proto. `defaults.complete` fills in what
    depends on the base."""

    base_model: str = ""
    data_path: str = ""
    """Relative to the artifact store."""
    data_digest: str = ""
    adapter_name: str = ""
    seed: int = 0
    hyperparameters: Hyperparameters = Hyperparameters()

    @property
    def accumulation(self) -> int:
        """Forward passes per optimiser step."""
        given = self.hyperparameters
        return given.effective_batch_size // given.micro_batch_size

    def steps_for(self, examples: int) -> int:
        """Optimiser steps over this many examples: the passes, cut at `max_steps`."""
        given = self.hyperparameters
        forward_passes = -(-examples // given.micro_batch_size)
        per_epoch = -(-forward_passes // self.accumulation)
        if not given.epochs:
            return given.max_steps
        steps = max(1, round(given.epochs * per_epoch))
        return min(steps, given.max_steps) if given.max_steps else steps

    def differing(self, other: RunSpec) -> list[str]:
        """The names of the fields and hyper-parameters in which two specs differ."""
        mine, theirs = _flat(self), _flat(other)
        return [name for name, value in mine.items() if value != theirs[name]]


def _flat(spec: RunSpec) -> dict[str, object]:
    return spec.model_dump(exclude={"hyperparameters"}) | spec.hyperparameters.model_dump()
