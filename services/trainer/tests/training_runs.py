"""Trainings of the tiny base in the test's own process."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tuneproof.adapters import read_base_config
from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof_trainer.bases import Base
from tuneproof_trainer.data import Example
from tuneproof_trainer.defaults import complete
from tuneproof_trainer.spec import RunSpec

PLAIN = {
    "method": "lora",
    "rank": 4,
    "learning_rate": 1e-2,
    "effective_batch_size": 6,
    "micro_batch_size": 3,
}


def example(prompt: str, answer: str, line: int = 1) -> Example:
    said = (("user", prompt), ("assistant", answer))
    return Example(line, tuple({"role": role, "content": text} for role, text in said))


def spec_for(base: Path, **asked: Any) -> RunSpec:
    spec = RunSpec(
        data_path="data/train.jsonl",
        data_digest="sha256:" + "0" * 64,
        adapter_name="short",
        seed=5,
        hyperparameters=Hyperparameters(**(PLAIN | asked)),
        validation_path="v",
        validation_digest="sha256:" + "1" * 64,
    )
    return complete(spec, Base("tiny", read_base_config(base)))


class Trained:
    """What a training gave."""

    def __init__(
        self,
        base: Path,
        target: Path,
        examples: list[Example],
        *,
        validation: list[Example] | None = None,
        **asked: Any,
    ) -> None:
        import torch
        from transformers import AutoTokenizer

        from tuneproof_trainer.worker.base_model import load_base
        from tuneproof_trainer.worker.tokens import tokenise
        from tuneproof_trainer.worker.training import train

        torch.set_num_threads(1)
        tokenizer = AutoTokenizer.from_pretrained(base)
        self.spec = spec_for(base, **asked)
        self.steps: list[Any] = []
        self.result = train(
            load_base(base, self.spec.hyperparameters, "cpu"),
            tokenizer,
            tokenise(tokenizer, examples, max_length=64, path="x"),
            self.spec,
            workspace=target / "workspace",
            target=target,
            on_step=self.steps.append,
            validation=tokenise(tokenizer, validation or [], max_length=64, path="v"),
        )
        self.weights = target / "adapter_model.safetensors"
        self.losses = [step.loss for step in self.steps]

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.weights.read_bytes()).hexdigest()

    def tensors(self) -> dict[str, Any]:
        from safetensors.torch import load_file

        return load_file(self.weights)
