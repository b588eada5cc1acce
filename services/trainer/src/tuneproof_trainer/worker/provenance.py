"""The provenance of an adapter: what made it, by name."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from tuneproof.adapters.base import BaseIdentity
from tuneproof_trainer.record import Job
from tuneproof_trainer.spec import RunSpec
from tuneproof_trainer.worker.base_model import LoadedBase
from tuneproof_trainer.worker.tokens import Sequences
from tuneproof_trainer.worker.training import TrainingResult

_PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate")


def provenance_of(
    spec: RunSpec,
    job: Job,
    *,
    base: LoadedBase,
    identity: BaseIdentity,
    sequences: Sequence[Sequences],
    outcome: TrainingResult,
) -> dict[str, str]:
    """Everything that identifies the training, as text by name. Sequences, numbers and choices are
    written as text; `hyperparameters` is JSON."""
    prompt = sum(one.prompt_length for one in sequences)
    total = sum(len(one.input_ids) for one in sequences)
    facts = {
        "run_id": job.run_id,
        "base_model": spec.base_model,
        "base_revision": job.base_revision,
        **{f"base_{name}": digest for name, digest in identity.to_json().items()},
        "base_precision": base.precision,
        "compute_precision": str(base.compute_dtype).removeprefix("torch."),
        "adapter_precision": outcome.adapter_precision,
        "data_path": spec.data_path,
        "data_digest": spec.data_digest,
        "examples": len(sequences),
        "prompt_tokens": prompt,
        "answer_tokens": total - prompt,
        "longest_example_tokens": max(len(one.input_ids) for one in sequences),
        "method": spec.hyperparameters.method,
        "trainable_parameters": outcome.trainable_parameters,
        "optimizer": outcome.optimizer,
        "steps": outcome.steps,
        "rows": outcome.rows,
        "packing": spec.hyperparameters.packing,
        **_of_validation(spec, outcome),
        "first_loss": f"{outcome.first_loss:.6g}",
        "final_loss": f"{outcome.last_loss:.6g}",
        "train_seconds": f"{outcome.seconds:.2f}",
        "peak_gpu_bytes": outcome.peak_gpu_bytes,
        "device": base.device,
        "devices": job.processes,
        "threads": job.threads,
        "seed": spec.seed,
        "hyperparameters": spec.hyperparameters.model_dump_json(),
        "python_version": platform.python_version(),
        "machine": platform.machine(),
        **{f"{package}_version": _version(package) for package in _PACKAGES},
    }
    return {name: str(value) for name, value in facts.items()}


def _of_validation(spec: RunSpec, outcome: TrainingResult) -> dict[str, str]:
    if outcome.validated is None:
        return {}
    file = {"validation_path": spec.validation_path, "validation_digest": spec.validation_digest}
    return outcome.validated.facts() | (file if spec.validation_path else {})


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
