"""The training itself: TRL's SFTTrainer over a peft model, which reports each step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import trl.trainer.utils as trl_utils
from peft import LoraConfig
from transformers import TrainerCallback
from trl import SFTConfig

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_trainer.progress import Step
from tuneproof_trainer.spec import RunSpec
from tuneproof_trainer.worker.base_model import LoadedBase
from tuneproof_trainer.worker.checkpoints import Checkpoints
from tuneproof_trainer.worker.packing import refuse_leaking, rows_of
from tuneproof_trainer.worker.reporting import Reporting
from tuneproof_trainer.worker.resuming import Keeper, ResumableTrainer
from tuneproof_trainer.worker.sharing import (
    DrawAnew,
    largest,
    part,
    rank,
    shares_of,
    with_blank,
    world,
)
from tuneproof_trainer.worker.stopping import StoppedError
from tuneproof_trainer.worker.tokens import Sequences
from tuneproof_trainer.worker.validation import Validated, Validator

_SMOOTHING = 0.8
_SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
"""transformers' names of the schedules."""
_NOWHERE = Reporting()


@dataclass(frozen=True)
class TrainingResult:
    """What a training did, in numbers."""

    steps: int
    first_loss: float
    last_loss: float
    trainable_parameters: int
    adapter_precision: str
    """The type in which the adapter was trained and saved."""
    optimizer: str
    seconds: float
    peak_gpu_bytes: int
    """The most that tensors took on the GPU at once, the base's loading included; 0 on a CPU."""
    resumed_from: int = 0
    """The step of the checkpoint from which the last attempt went on; 0: it began anew."""
    rows: int = 0
    """Of a pass: examples, or what they were packed into."""
    validated: Validated | None = None
    """None without validation."""


def train(
    base: LoadedBase,
    tokenizer: Any,
    sequences: Sequence[Sequences],
    spec: RunSpec,
    *,
    workspace: Path,
    target: Path,
    on_step: Callable[[Step], None],
    checkpoints: Checkpoints | None = None,
    validation: Sequence[Sequences] = (),
    reporting: Reporting = _NOWHERE,
) -> TrainingResult:
    """Tunes an adapter and saves it as peft does.

    On a CPU equal specs, data, thread counts and versions give equal weights, bit by bit, from
    whichever checkpoint the training goes on. Several processes call it at the same time, each in
    its own `workspace`; they share the batches, and the first one saves.

    Args:
        workspace: where the trainer may leave files.
        target: the folder that gets adapter_model.safetensors and adapter_config.json.
        on_step: called after each optimiser step.
        validation: examples that only validate.
        checkpoints: those of the run; the training goes on from the newest, and adds more.
        reporting: where else the losses go.

    Raises:
        InvalidInput: when the loss becomes infinite or NaN, or packed examples would see one
            another.
        StoppedError: when the worker was told to stop; a checkpoint was added.
    """
    if tokenizer.pad_token is None:
        # Padding is masked by length, not by id, so the end of sequence is still learned.
        tokenizer.pad_token = tokenizer.eos_token
    if not base.on_gpu:
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        _score_answers_only()
    asked = spec.hyperparameters
    optimizer = asked.optimizer
    if optimizer == "auto":
        optimizer = "paged_adamw_32bit" if base.on_gpu else "adamw_torch"
    if asked.packing != "none":
        refuse_leaking(base.model, sequences)
    rows = rows_of(sequences, asked)
    steps = spec.steps_for(len(rows))
    validator = Validator(validation, spec, steps) if validation else None
    reporter = _Reporter(steps, on_step, validator)
    trainer = ResumableTrainer(
        model=base.model,
        args=_arguments(
            spec,
            base,
            workspace=workspace,
            steps=steps,
            optimizer=optimizer,
            reporting=reporting,
        ),
        train_dataset=with_blank(rows),
        processing_class=tokenizer,
        peft_config=_lora(asked),
        callbacks=[DrawAnew(spec.seed), *filter(None, (validator,)), reporter],
    )
    trainer.shares = shares_of(len(rows), spec)
    model = trainer.model
    if not base.on_gpu or base.compute_dtype == torch.float32:
        _hold_in_float32(model)
    if validator:
        validator.trainer, trainer.validator = trainer, validator
    begun = time.monotonic()
    resumed_from = _run(trainer, checkpoints, workspace)
    seconds = time.monotonic() - begun
    if validator:
        validator.restore_best()
        seconds -= validator.found.seconds
    tuned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    part(trainer)
    if rank() == 0:
        _save(model, spec, target)
    return TrainingResult(
        steps=reporter.last_step or steps,
        first_loss=reporter.first_loss,
        last_loss=reporter.last_loss,
        trainable_parameters=sum(parameter.numel() for parameter in tuned),
        adapter_precision=", ".join(sorted({str(parameter.dtype)[6:] for parameter in tuned})),
        optimizer=optimizer,
        seconds=seconds,
        peak_gpu_bytes=torch.cuda.max_memory_allocated() if base.on_gpu else 0,
        resumed_from=resumed_from,
        rows=len(rows),
        validated=validator.found if validator else None,
    )


def _save(model: Any, spec: RunSpec, target: Path) -> None:
    for config in model.peft_config.values():
        config.base_model_name_or_path = spec.base_model  # Not its folder on this machine.
    model.save_pretrained(target, safe_serialization=True, save_embedding_layers=False)


def _run(trainer: ResumableTrainer, checkpoints: Checkpoints | None, workspace: Path) -> int:
    """Trains from the newest checkpoint on; gives its step."""
    if checkpoints is None:
        trainer.train()
        return 0
    keeper = Keeper(checkpoints, trainer)
    trainer.add_callback(keeper)
    found = checkpoints.newest(workspace / "resumed") if rank() == 0 else None
    step = largest(int(found.name) if found else 0)[0]
    if step and found is None:
        found = checkpoints.load(step, workspace / "resumed")
    with checkpoints.stop.saving():
        trainer.resume(found)
    if keeper.stopped:
        raise StoppedError
    return step


def _arguments(
    spec: RunSpec,
    base: LoadedBase,
    *,
    workspace: Path,
    steps: int,
    optimizer: str,
    reporting: Reporting,
) -> SFTConfig:
    asked = spec.hyperparameters
    return SFTConfig(
        output_dir=str(workspace),
        max_steps=steps,
        per_device_train_batch_size=asked.micro_batch_size,
        gradient_accumulation_steps=spec.accumulation // world(),
        learning_rate=asked.learning_rate,
        lr_scheduler_type=_SCHEDULES[asked.schedule],
        # A warm-up begins at the rate 0: a training of that step alone would train nothing.
        warmup_steps=min(math.ceil(asked.warmup_ratio * steps), steps - 1),
        max_grad_norm=asked.max_grad_norm,
        weight_decay=0.0,
        optim=optimizer,
        seed=spec.seed,
        use_cpu=not base.on_gpu,
        bf16=base.compute_dtype == torch.bfloat16,
        gradient_checkpointing=asked.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        max_length=None,  # Lengths were checked: nothing is cut here.
        packing=False,  # `rows_of` has packed them.
        padding_free=asked.packing != "none",
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=list(reporting.to) or "none",
        run_name=reporting.run_name or None,
        disable_tqdm=True,
        dataloader_pin_memory=base.on_gpu,
    )


def _lora(asked: Hyperparameters) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=asked.rank,
        lora_alpha=int(asked.alpha) if float(asked.alpha).is_integer() else asked.alpha,
        lora_dropout=asked.dropout,
        target_modules=list(asked.target_modules) or "all-linear",
        target_parameters=list(asked.target_parameters) or None,
        use_rslora=asked.use_rslora,
        bias="none",
    )


def _score_answers_only() -> None:
    """TRL 1.16 projects every position onto the vocabulary unless it runs on Triton, and then drops
    prompt and padding. That is two fifths of a step on a CPU with short answers and a small model.
    Its Triton branch chooses the positions first, and needs no Triton for that."""
    if hasattr(trl_utils, "_use_triton"):
        trl_utils._use_triton = lambda device: True  # noqa: ARG005, SLF001


def _hold_in_float32(model: Any) -> None:
    """TRL 1.16 casts the adapter over a 4-bit base to bfloat16, as the QLoRA paper does on GPUs.
    A CPU computes in float32 here, and bfloat16's eight bits would lose small updates. The
    optimiser is made later, so it gets the float32 weights."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


class _Reporter(TrainerCallback):  # type: ignore[misc]
    """Reports each step, and stops a training whose loss is not finite."""

    def __init__(
        self, total: int, on_step: Callable[[Step], None], validator: Validator | None
    ) -> None:
        self._total = total
        self._on_step = on_step
        self._validator = validator
        self._validated = 0.0
        self._before = 0.0
        self._tokens = 0.0
        self._pace = 0.0
        self.first_loss = math.nan
        self.last_loss = math.nan
        self.last_step = 0

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        self._pause()  # The validator comes first, and validates now.
        self._before = time.monotonic()
        losses = [float(entry["loss"]) for entry in state.log_history if "loss" in entry]
        if losses:  # The training goes on from a checkpoint.
            self.first_loss, self.last_loss = losses[0], losses[-1]

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Any, **_: Any) -> None:
        if "loss" not in logs:
            return  # The summary at the end.
        now, loss, tokens = time.monotonic(), float(logs["loss"]), float(logs["num_tokens"])
        if not math.isfinite(loss):
            raise InvalidInput(
                f"the loss became {loss} at step {state.global_step}; lower learning_rate, or "
                "check the data near there",
                field="spec.hyperparameters.learning_rate",
            )
        took = now - self._before - self._pause()
        self._pace = _SMOOTHING * self._pace + (1 - _SMOOTHING) * took if self._pace else took
        self.first_loss = loss if math.isnan(self.first_loss) else self.first_loss
        self.last_loss, self.last_step = loss, state.global_step
        losses = self._validator.found.losses if self._validator else {}
        self._on_step(
            Step(
                step=state.global_step,
                total_steps=self._total,
                loss=loss,
                tokens_per_second=(tokens - self._tokens) / max(took, 1e-9),
                eta=self._pace * (self._total - state.global_step),
                validation_loss=losses.get(state.global_step),
            )
        )
        self._before, self._tokens = now, tokens

    def _pause(self) -> float:
        """Seconds that validation took since the last call."""
        before = self._validated
        self._validated = self._validator.found.seconds if self._validator else 0.0
        return self._validated - before
