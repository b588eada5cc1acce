"""One training of `train.py`, in a process of its own: prints its figures as a line of JSON.

    python benchmarks/train_arm.py ARM TASK.json

    ours     the trainer's worker's own code
    best     TRL's SFTTrainer with every setting of ours that a user of TRL can set
    default  TRL's SFTTrainer with its own settings, but for what decides what is learned

All three get the loaded base and the conversations, and leave a saved adapter.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tuneproof_trainer.data import Example
from tuneproof_trainer.spec import RunSpec
from tuneproof_trainer.worker.base_model import load_base
from tuneproof_trainer.worker.tokens import IGNORED, Sequences, tokenise
from tuneproof_trainer.worker.training import train

_VALIDATED_AT_ONCE = 8
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Task:
    """What is trained, equal for all arms."""

    base: Path
    scratch: Path
    spec: RunSpec
    """With every default filled in."""
    training: list[Messages]
    validation: list[Messages]
    threads: int

    @classmethod
    def load(cls, path: Path) -> Task:
        """Reads what `train.py` wrote."""
        value = json.loads(path.read_text())
        return cls(
            Path(value["base"]),
            Path(value["scratch"]),
            RunSpec.model_validate(value["spec"]),
            value["training"],
            value["validation"],
            value["threads"],
        )


def main() -> None:
    """The program."""
    arm, task = sys.argv[1], Task.load(Path(sys.argv[2]))
    torch.set_num_threads(task.threads)
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    base = load_base(task.base, task.spec.hyperparameters, "cpu")
    tokenizer = AutoTokenizer.from_pretrained(task.base)
    begun, worked = time.perf_counter(), time.process_time()
    model, steps = (_ours if arm == "ours" else _plain)(arm, task, base, tokenizer)
    seconds, wall = time.process_time() - worked, time.perf_counter() - begun
    sequences = _tokenised(tokenizer, task.training, task.spec)
    passes = task.spec.hyperparameters.epochs
    answers = sum(len(one.input_ids) - one.prompt_length for one in sequences)
    validation = _tokenised(tokenizer, task.validation, task.spec)
    found = {
        "seconds": seconds,
        "wall_seconds": wall,
        "answer_tokens_per_second": passes * answers / seconds,
        "tokens_per_second": passes * sum(len(one.input_ids) for one in sequences) / seconds,
        "steps": steps,
        "validation_loss": _validation_loss(model, validation),
        "longest": max(len(one.input_ids) for one in sequences),
        "mean_length": sum(len(one.input_ids) for one in sequences) / len(sequences),
        "answer_length": answers / len(sequences),
    }
    print(json.dumps(found))


def _ours(_arm: str, task: Task, base: Any, tokenizer: Any) -> tuple[Any, int]:
    steps: list[Any] = []
    sequences = _tokenised(tokenizer, task.training, task.spec)
    train(
        base,
        tokenizer,
        sequences,
        task.spec,
        workspace=task.scratch / "workspace",
        target=task.scratch / "adapter",
        on_step=steps.append,
    )
    return base.model, len(steps)


def _plain(arm: str, task: Task, base: Any, tokenizer: Any) -> tuple[Any, int]:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    asked, spec = task.spec.hyperparameters, task.spec
    settings: dict[str, Any] = {
        "output_dir": str(task.scratch / "workspace"),
        "use_cpu": True,
        "bf16": base.compute_dtype == torch.bfloat16,
        # What decides what is learned.
        "num_train_epochs": asked.epochs,
        "learning_rate": asked.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "max_grad_norm": asked.max_grad_norm,
        "seed": spec.seed,
        # Effects outside the process.
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    batch = asked.effective_batch_size
    if arm == "best":
        settings |= {
            "per_device_train_batch_size": asked.micro_batch_size,
            "gradient_checkpointing": asked.gradient_checkpointing,
            "optim": "adamw_torch",
            "max_length": None,
            "dataloader_pin_memory": False,
        }
    settings["gradient_accumulation_steps"] = batch // settings.get(
        "per_device_train_batch_size", SFTConfig.per_device_train_batch_size
    )
    steps = spec.steps_for(len(task.training))
    settings["warmup_steps"] = math.ceil(asked.warmup_ratio * steps)
    rows = [{"prompt": each[:-1], "completion": each[-1:]} for each in task.training]
    trainer = SFTTrainer(
        model=base.model,
        args=SFTConfig(**settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=asked.rank,
            lora_alpha=int(asked.alpha),
            lora_dropout=asked.dropout,
            target_modules="all-linear",
        ),
    )
    trainer.train()
    trainer.model.save_pretrained(task.scratch / "adapter", save_embedding_layers=False)
    return trainer.model, trainer.state.global_step


def _tokenised(tokenizer: Any, conversations: list[Messages], spec: RunSpec) -> list[Sequences]:
    examples = [Example(line, tuple(each)) for line, each in enumerate(conversations, 1)]
    return tokenise(tokenizer, examples, max_length=spec.hyperparameters.max_length, path="data")


def _validation_loss(model: Any, sequences: list[Sequences]) -> float:
    """Mean over all answer tokens, in nats, by plain PyTorch in float32: the same for every arm."""
    model.eval()
    total, tokens = 0.0, 0
    for at in range(0, len(sequences), _VALIDATED_AT_ONCE):
        some = sequences[at : at + _VALIDATED_AT_ONCE]
        width = max(len(one.input_ids) for one in some)
        ids = torch.zeros(len(some), width, dtype=torch.long)
        labels = torch.full((len(some), width), IGNORED)
        mask = torch.zeros(len(some), width, dtype=torch.long)
        for row, one in enumerate(some):
            length = len(one.input_ids)
            ids[row, :length] = torch.tensor(one.input_ids)
            labels[row, :length] = torch.tensor(one.labels)
            mask[row, :length] = 1
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        seen = labels[:, 1:] != IGNORED
        chosen = logits[:, :-1][seen].float().log_softmax(-1)
        total -= float(chosen.gather(1, labels[:, 1:][seen][:, None]).double().sum())
        tokens += int(seen.sum())
    return total / tokens


if __name__ == "__main__":
    main()
