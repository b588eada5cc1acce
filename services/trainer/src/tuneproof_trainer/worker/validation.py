"""The loss over other examples than those trained on, an early end by it, and the best adapter.

transformers' own evaluation averages the means of batches, so its figure moves with the batch size.
This one is the mean over all tokens that the loss sees, as the training's loss is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainerCallback

from tuneproof.servicekit.errors import InvalidInput
from tuneproof_trainer.spec import RunSpec
from tuneproof_trainer.worker.sharing import rank, summed, world
from tuneproof_trainer.worker.tokens import Sequences

_VALIDATIONS = 10
"""In a training that does not say how often."""


@dataclass
class Validated:
    """What was found so far."""

    examples: int = 0
    before: float = math.nan
    """The loss before the first step, which is the base's, in nats."""
    losses: dict[int, float] = field(default_factory=dict)
    """By optimiser step."""
    best_step: int = 0
    stopped_early: bool = False
    seconds: float = 0.0

    @property
    def best(self) -> float:
        """The lowest loss after a step."""
        return self.losses.get(self.best_step, math.nan)

    def facts(self) -> dict[str, str]:
        """For the provenance."""
        last = max(self.losses, default=0)
        return {
            "validation_examples": str(self.examples),
            "validation_loss_before": f"{self.before:.6g}",
            "validation_loss": f"{self.losses.get(last, math.nan):.6g}",
            "best_validation_loss": f"{self.best:.6g}",
            "best_step": str(self.best_step),
            "stopped_early": "yes" if self.stopped_early else "no",
            "validation_seconds": f"{self.seconds:.2f}",
        }


class Validator(TrainerCallback):  # type: ignore[misc]
    """Validates every few steps; ends the training when the loss falls no more.

    Args:
        sequences: what to validate on, one or more.
        total: optimiser steps of the training.
    """

    def __init__(self, sequences: Sequence[Sequences], spec: RunSpec, total: int) -> None:
        asked = spec.hyperparameters
        # Examples of like lengths together: less padding.
        self._sequences = sorted(sequences, key=lambda one: -len(one.input_ids))
        self._batch = asked.micro_batch_size
        self._every = asked.validation_steps or max(1, math.ceil(total / _VALIDATIONS))
        self._patience = asked.early_stopping_patience
        self._total = total
        self._best: dict[str, torch.Tensor] = {}
        self.trainer: Any = None
        """Whose model is validated; set once it is made."""
        self.found = Validated(examples=len(sequences))

    def on_train_begin(self, _args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == 0:
            self.found.before = self._loss(0)

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        step = state.global_step
        if step % self._every and step != self._total:
            return
        loss = self._loss(step)
        self._tell(loss, control)
        found = self.found
        found.losses[step] = loss
        if not found.best_step or loss < found.best:
            found.best_step = step
            if self._patience:
                self._best = self._weights()
        since = sum(at > found.best_step for at in found.losses)
        if self._patience and since >= self._patience and step < self._total:
            found.stopped_early = True
            control.should_training_stop = True

    def restore_best(self) -> None:
        """Puts the adapter of the lowest loss into the model, where the training may end early."""
        if not self._best:
            return
        for name, parameter in self.trainer.model.named_parameters():
            if name in self._best:
                parameter.data.copy_(self._best[name])

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must keep; tensors are under `best`."""
        found = self.found
        return {
            "before": found.before,
            "losses": dict(found.losses),
            "best_step": found.best_step,
            "seconds": found.seconds,
            "best": dict(self._best),
        }

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        """Goes on from a checkpoint."""
        self.found = Validated(
            examples=len(self._sequences),
            before=kept["before"],
            losses={int(step): loss for step, loss in kept["losses"].items()},
            best_step=kept["best_step"],
            seconds=kept["seconds"],
        )
        self._best = dict(kept["best"])

    def _tell(self, loss: float, control: Any) -> None:
        """Tells TensorBoard and MLflow, where the training reports to them."""
        model, wanted = self.trainer.model, control.should_log
        model.eval()  # TRL logs what it has counted in training with what is logged in its mode.
        self.trainer.log({"eval_loss": loss})
        model.train()
        control.should_log = wanted  # transformers 5.19 takes it for the log of the step.

    def _weights(self) -> dict[str, torch.Tensor]:
        return {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in self.trainer.model.named_parameters()
            if parameter.requires_grad
        }

    def _loss(self, step: int) -> float:
        """In nats a token."""
        begun = time.monotonic()
        model = self.trainer.model
        was_training = model.training
        model.eval()
        total = tokens = 0.0
        for at in range(rank() * self._batch, len(self._sequences), world() * self._batch):
            batch = self.trainer.data_collator(
                [
                    {"input_ids": list(one.input_ids), "labels": list(one.labels)}
                    for one in self._sequences[at : at + self._batch]
                ]
            )
            inputs = {
                name: value.to(model.device) if isinstance(value, torch.Tensor) else value
                for name, value in batch.items()
            }
            with torch.no_grad(), self.trainer.compute_loss_context_manager():
                # TRL's own head: only the positions that the loss sees meet the vocabulary.
                outputs = model(**inputs, use_cache=False, fused_lm_head=True)
            total -= float(outputs.log_probs.double().sum())
            tokens += int(outputs.label_mask.sum())
        total, tokens = summed(total, tokens)
        loss = total / tokens
        model.train(was_training)
        self.found.seconds += time.monotonic() - begun
        if not math.isfinite(loss):
            raise InvalidInput(
                f"the validation loss became {loss} at step {step}; lower learning_rate, or check"
                " the validation examples",
                field="spec.hyperparameters.learning_rate",
            )
        return loss
