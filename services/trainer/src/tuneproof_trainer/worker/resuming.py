"""Saving within transformers' Trainer, and going on from what was saved.

A checkpoint holds the adapter, the optimiser, the schedule, the state of every random generator and
the step, so that an interrupted training ends with the weights of an uninterrupted one (on a CPU
bit by bit).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from trl import SFTTrainer

from tuneproof.servicekit.errors import TuneproofError
from tuneproof_trainer.worker.checkpoints import Checkpoints
from tuneproof_trainer.worker.sharing import SharedRows, Shares, largest, world
from tuneproof_trainer.worker.validation import Validator

_VALIDATED = "validated.pt"
"""What validation has found so far, in a checkpoint."""


class ResumableTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer, which goes on where a checkpoint cannot be written."""

    trouble: str = ""
    """Why the last checkpoint could not be written on this machine."""
    validator: Validator | None = None
    """What it has found is part of a checkpoint."""
    shares: Shares | None = None
    """What this process reads, where several share the training."""

    def get_train_dataloader(self) -> Any:
        """The rows of this process."""
        whole = super().get_train_dataloader()
        if self.shares is None:
            return whole
        return SharedRows(
            whole.dataset,
            batch_sampler=self.shares,
            collate_fn=whole.collate_fn,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def resume(self, checkpoint: Path | None) -> None:
        """Trains, from a checkpoint on if one is given."""
        kept = checkpoint / _VALIDATED if checkpoint else None
        if self.validator is not None and kept is not None and kept.is_file():
            self.validator.load_state_dict(torch.load(kept, weights_only=True))
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.trouble = ""
        try:
            # Not TRL 1.16's, which writes a model card besides.
            super(SFTTrainer, self)._save_checkpoint(model, trial)
            if self.validator is not None and self.state.is_world_process_zero:
                folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
                torch.save(self.validator.state_dict(), folder / _VALIDATED)
        except TuneproofError:
            raise
        except Exception as error:  # noqa: BLE001 - torch, safetensors and json each have their own
            self.trouble = f"{type(error).__name__}: {error}"

    def _save_rng_state(self, output_dir: str) -> None:
        if world() == 1:  # Else each step draws anew, and only one process has the folder.
            super()._save_rng_state(output_dir)


class Keeper(TrainerCallback):  # type: ignore[misc]
    """Says when a checkpoint is saved, and hands it on.

    All processes of a training decide alike: they meet in every step anyway.
    """

    def __init__(self, checkpoints: Checkpoints, trainer: ResumableTrainer) -> None:
        self._checkpoints = checkpoints
        self._trainer = trainer
        self.stopped = False
        """Whether the training was ended before its last step."""

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        stop = self._checkpoints.stop
        stops, is_due = largest(stop.requested, self._checkpoints.is_due(state.global_step))
        if state.global_step >= state.max_steps or control.should_training_stop:
            return  # It was the last step: the adapter itself is saved next.
        if stops:
            self.stopped = control.should_training_stop = stop.requested = True
        if stops or is_due:
            control.should_save = True

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if not state.is_world_process_zero:
            return
        if self._trainer.trouble:
            self._checkpoints.warn(
                f"the checkpoint of step {state.global_step} is not saved: {self._trainer.trouble}"
            )
            return
        self._checkpoints.add(state.global_step, folder)
