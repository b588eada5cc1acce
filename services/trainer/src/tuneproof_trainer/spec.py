"""What is to be trained."""

from __future__ import annotations

from pydantic import BaseModel

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.servicekit.errors import InvalidInput


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
    validation_path: str = ""
    """A file of examples that only validate; empty: see `validation_share`."""
    validation_digest: str = ""
    held_out_path: str = ""
    """A file of items that training must not see; empty: none."""
    held_out_digest: str = ""
    allow_leakage: bool = False
    """Trains on examples that are held out, too."""

    @property
    def validates(self) -> bool:
        """Whether some examples only validate."""
        return bool(self.validation_path or self.hyperparameters.validation_share)

    @property
    def accumulation(self) -> int:
        """Forward passes per optimiser step."""
        given = self.hyperparameters
        return given.effective_batch_size // given.micro_batch_size

    def steps_for(self, examples: int) -> int:
        """Optimiser steps over this many rows of a batch, which are examples unless they are packed
        up to `max_length`: the passes, cut at `max_steps`."""
        given = self.hyperparameters
        forward_passes = -(-examples // given.micro_batch_size)
        per_epoch = -(-forward_passes // self.accumulation)
        if not given.epochs:
            return given.max_steps
        steps = max(1, round(given.epochs * per_epoch))
        return min(steps, given.max_steps) if given.max_steps else steps

    def refuse_indivisible(self, processes: int) -> None:
        """Makes sure that so many processes can share each step.

        Raises:
            InvalidInput: the run was created for another number.
        """
        if self.accumulation % processes:
            given = self.hyperparameters
            raise InvalidInput(
                f"the run has effective_batch_size {given.effective_batch_size} in micro-batches of"
                f" {given.micro_batch_size}, which {processes} devices cannot share; create it"
                " anew, or start the trainer with another number of --devices",
                field="spec.hyperparameters.micro_batch_size",
            )

    def decided_as(self, other: RunSpec, asked: RunSpec) -> RunSpec:
        """This spec with what another trainer's device decided in `other`, where `asked` leaves it
        open: a run is the same run on another GPU."""
        given = asked.hyperparameters
        mine, theirs = self.hyperparameters, other.hyperparameters
        open_ones: dict[str, object] = {}
        if not given.micro_batch_size:
            open_ones["micro_batch_size"] = theirs.micro_batch_size
        if "gradient_checkpointing" not in given.model_fields_set:
            open_ones["gradient_checkpointing"] = theirs.gradient_checkpointing
        return self.model_copy(update={"hyperparameters": mine.model_copy(update=open_ones)})

    def differing(self, other: RunSpec) -> list[str]:
        """The names of the fields and hyper-parameters in which two specs differ."""
        mine, theirs = _flat(self), _flat(other)
        return [name for name, value in mine.items() if value != theirs[name]]


def _flat(spec: RunSpec) -> dict[str, object]:
    return spec.model_dump(exclude={"hyperparameters"}) | spec.hyperparameters.model_dump()
