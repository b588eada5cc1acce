"""A spec's defaults that depend on base and device, and all the mistakes in a spec at once."""

from __future__ import annotations

from tuneproof.adapters.hyperparameters import Hyperparameters, with_preset
from tuneproof.adapters.memory import LARGEST_MICRO_BATCH
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_trainer.bases import Base
from tuneproof_trainer.plan.batches import divide, divisors
from tuneproof_trainer.plan.contradictions import contradictions
from tuneproof_trainer.plan.device import CPU, Device
from tuneproof_trainer.plan.memory import needed
from tuneproof_trainer.plan.packing import LONGEST_ROW
from tuneproof_trainer.spec import RunSpec


def complete(spec: RunSpec, base: Base, device: Device = CPU) -> RunSpec:
    """The spec with every default filled in.

    Args:
        base: that of the spec; see `base_of`.
        device: what the run will train on.

    Raises:
        InvalidInput: with every mistake in it.
    """
    full = _filled(spec, base, device)
    mistakes = list(contradictions(full, base, device))
    if mistakes:
        raise InvalidInput(
            "the spec cannot be run: " + "; ".join(sentence for _, sentence in mistakes),
            field=f"spec.{mistakes[0][0]}",
            fields=",".join(f"spec.{field}" for field, _ in mistakes),
        )
    return full


def _filled(spec: RunSpec, base: Base, device: Device) -> RunSpec:
    """With the defaults that depend on the base, on the device or on one another."""
    asked = spec.hyperparameters
    given = with_preset({name: getattr(asked, name) for name in asked.model_fields_set})
    filled = asked.model_copy(update=given)
    filled = filled.model_copy(
        update={
            "target_modules": tuple(sorted(filled.target_modules)) or base.default_targets,
            "skip_modules": tuple(sorted(filled.skip_modules)),
            "target_parameters": tuple(sorted(filled.target_parameters)),
            "epochs": 0 if filled.max_steps and "epochs" not in given else filled.epochs,
            "max_length": filled.max_length
            if "max_length" in given
            else min(filled.max_length, base.longest_context or filled.max_length),
        }
    )
    checkpointing = filled.gradient_checkpointing if "gradient_checkpointing" in given else None
    return spec.model_copy(
        update={
            "base_model": spec.base_model or base.name,
            "hyperparameters": filled.model_copy(
                update=_batch(filled, base, device, checkpointing)
            ),
        }
    )


def _batch(
    filled: Hyperparameters, base: Base, device: Device, checkpointing: bool | None
) -> dict[str, object]:
    """The micro-batch, and whether its memory asks for gradient checkpointing."""
    rows = filled.effective_batch_size
    if filled.micro_batch_size or rows < 1 or not divisors(rows, device.count):
        return {"micro_batch_size": filled.micro_batch_size or 1}  # A mistake is told later.

    def takes(size: int, with_checkpointing: bool) -> int | None:
        tried = {"micro_batch_size": size, "gradient_checkpointing": with_checkpointing}
        found = needed(base.config, filled.model_copy(update=tried), on_gpu=device.on_gpu)
        return None if found is None else found.total

    batch = divide(
        rows,
        devices=device.count,
        memory=device.memory_bytes if device.on_gpu else 0,
        needed=takes,
        checkpointing=checkpointing,
        most=LARGEST_MICRO_BATCH
        if filled.packing == "none"
        else min(LARGEST_MICRO_BATCH, max(1, LONGEST_ROW // max(1, filled.max_length))),
    )
    return {
        "micro_batch_size": batch.micro_batch,
        "gradient_checkpointing": batch.checkpointing,
    }
