"""The provenance of an adapter: what made it, by name; and its model card, for people."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
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


def card_of(adapter_name: str, facts: Mapping[str, str]) -> str:
    """The model card, README.md, with the header that the hub reads."""
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in sorted(facts.items()))
    return f"""---
library_name: peft
base_model: {facts["base_model"]}
tags:
- lora
- tuneproof
---

# {adapter_name}

A LoRA adapter of {facts["base_model"]}, tuned on {facts["examples"]} conversations
({facts["answer_tokens"]} tokens of answers) in {facts["steps"]} steps; the loss went from
{facts["first_loss"]} to {facts["final_loss"]}.

In training the base's precision was {facts["base_precision"]}. Over a base of another precision the
adapter answers differently: compare before you serve it so.

Load it with `peft.PeftModel.from_pretrained(base, folder)`.

| what | value |
|---|---|
{rows}
"""


def _cell(value: str) -> str:
    return f"`{value}`".replace("|", "\\|") if value else ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
