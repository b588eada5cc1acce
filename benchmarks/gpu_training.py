"""QLoRA on a GPU: the trainer's own code beside plain TRL, over one base that is loaded once."""

from __future__ import annotations

import gc
import hashlib
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from gpu_bases import Data

from tuneproof.adapters import read_base_config
from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof_trainer.bases import Base
from tuneproof_trainer.data import Example
from tuneproof_trainer.defaults import complete
from tuneproof_trainer.spec import RunSpec

BATCH = 16
_WARMING = 2
"""Steps that do not count: kernels are compiled and chosen in them."""


@dataclass(frozen=True)
class Setting:
    """What is varied."""

    rank: int
    micro_batch: int
    checkpointing: bool = False

    def spec(self, folder: Path, *, digest: str, steps: int, length: int) -> RunSpec:
        """As the service completes it; everything else is the trainer's default."""
        asked = Hyperparameters(
            rank=self.rank,
            alpha=2 * self.rank,
            max_steps=steps,
            effective_batch_size=max(BATCH, self.micro_batch),
            micro_batch_size=self.micro_batch,
            max_length=length,
            gradient_checkpointing=self.checkpointing,
        )
        spec = RunSpec(
            data_path="data/train.jsonl",
            data_digest=digest,
            adapter_name="measured",
            hyperparameters=asked,
        )
        return complete(spec, Base(folder.name, read_base_config(folder)))


@dataclass(frozen=True)
class Round:
    """One training of a few steps."""

    step_seconds: float
    """Median, without the first steps."""
    losses: tuple[float, ...]
    peak_bytes: int
    """The most that tensors took on the GPU at once, the base included."""
    reserved_bytes: int
    """The most that PyTorch's allocator held on the GPU."""
    trainable: int
    paged_bytes: int
    """Of the optimiser's state, what bitsandbytes put into paged memory."""
    digest: str
    """Of the adapter's weights; empty for plain TRL, which saves nothing."""


class Bench:
    """A base, and both ways to tune it.

    Args:
        folder: of the base.
        scratch: a folder for what trainings leave.
    """

    def __init__(self, folder: Path, data: Data, steps: int, scratch: Path) -> None:
        import torch
        from transformers import AutoTokenizer

        from tuneproof_trainer.worker.base_model import load_base
        from tuneproof_trainer.worker.tokens import tokenise

        self._folder, self._data, self._steps, self._scratch = folder, data, steps, scratch
        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        examples = [Example(line, each) for line, each in enumerate(data.messages, 1)]
        self._sequences = tokenise(self._tokenizer, examples, max_length=data.tokens, path="data")
        lengths = {(len(one.input_ids), one.prompt_length) for one in self._sequences}
        if lengths != {(data.tokens, data.tokens - data.answer_tokens)}:
            raise AssertionError(f"the data's lengths are {lengths}")
        begun = time.perf_counter()
        self._base = load_base(folder, Hyperparameters(), "auto")
        self.load_seconds = time.perf_counter() - begun

    def ours(self, setting: Setting) -> Round:
        """By the trainer's worker's code, as its process runs it."""
        from tuneproof_trainer.worker.training import train

        times, losses = [time.perf_counter()], []

        def on_step(step: Any) -> None:
            times.append(time.perf_counter())
            losses.append(step.loss)

        target = self._scratch / "adapter"
        shutil.rmtree(target, ignore_errors=True)
        before = self._begin()
        outcome = train(
            self._base,
            self._tokenizer,
            self._sequences,
            self._spec(setting),
            workspace=self._scratch / "workspace",
            target=target,
            on_step=on_step,
        )
        weights = (target / "adapter_model.safetensors").read_bytes()
        digest = hashlib.sha256(weights).hexdigest()
        return self._end(times, losses, outcome.trainable_parameters, before, digest)

    def plain(self, setting: Setting) -> Round:
        """By TRL alone, as its documentation shows it, with the same settings."""
        from datasets import Dataset
        from peft import LoraConfig
        from transformers import TrainerCallback
        from trl import SFTConfig, SFTTrainer

        times, losses = [time.perf_counter()], []

        class Watch(TrainerCallback):
            def on_log(self, _args: Any, _state: Any, _control: Any, logs: Any, **_: Any) -> None:
                if "loss" in logs:
                    times.append(time.perf_counter())
                    losses.append(float(logs["loss"]))

        spec, on_gpu = self._spec(setting), self._base.on_gpu
        asked = spec.hyperparameters
        before = self._begin()
        trainer = SFTTrainer(
            model=self._base.model,
            args=SFTConfig(
                output_dir=str(self._scratch / "workspace"),
                max_steps=self._steps,
                per_device_train_batch_size=asked.micro_batch_size,
                gradient_accumulation_steps=spec.accumulation,
                learning_rate=asked.learning_rate,
                lr_scheduler_type="constant_with_warmup",
                warmup_steps=math.ceil(asked.warmup_ratio * self._steps),
                max_grad_norm=asked.max_grad_norm,
                optim="paged_adamw_32bit" if on_gpu else "adamw_torch",
                seed=spec.seed,
                use_cpu=not on_gpu,
                bf16=on_gpu,
                gradient_checkpointing=asked.gradient_checkpointing,
                gradient_checkpointing_kwargs={"use_reentrant": False},
                completion_only_loss=True,
                max_length=None,
                logging_steps=1,
                logging_nan_inf_filter=False,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(
                [
                    {"prompt": list(each[:-1]), "completion": [each[-1]]}
                    for each in self._data.messages
                ]
            ),
            processing_class=self._tokenizer,
            peft_config=LoraConfig(
                task_type="CAUSAL_LM",
                r=asked.rank,
                lora_alpha=int(asked.alpha),
                target_modules="all-linear",
            ),
            callbacks=[Watch()],
        )
        tuned = sum(each.numel() for each in trainer.model.parameters() if each.requires_grad)
        times[0] = time.perf_counter()
        trainer.train()
        del trainer
        return self._end(times, losses, tuned, before, "")

    def give_up(self) -> None:
        """Clears up after a training that raised."""
        _take_off(self._base.model)

    def close(self) -> None:
        """Lets go of the base."""
        self._base = None

    def step_tokens(self, setting: Setting) -> int:
        """Tokens of an optimiser step."""
        return max(BATCH, setting.micro_batch) * self._data.tokens

    def _spec(self, setting: Setting) -> RunSpec:
        return setting.spec(
            self._folder,
            digest="sha256:" + "0" * 64,
            steps=self._steps,
            length=self._data.tokens,
        )

    def _begin(self) -> int:
        gc.collect()
        if self._base.on_gpu:
            self._torch.cuda.empty_cache()
            self._torch.cuda.reset_peak_memory_stats()
        return _paged_bytes()

    def _end(
        self,
        times: Sequence[float],
        losses: Sequence[float],
        trainable: int,
        paged_before: int,
        digest: str,
    ) -> Round:
        took = [after - before for before, after in pairwise(times)]
        cuda, on_gpu = self._torch.cuda, self._base.on_gpu
        found = Round(
            step_seconds=median(took[_WARMING:]),
            losses=tuple(losses),
            peak_bytes=cuda.max_memory_allocated() if on_gpu else 0,
            reserved_bytes=cuda.max_memory_reserved() if on_gpu else 0,
            trainable=trainable,
            paged_bytes=_paged_bytes() - paged_before,
            digest=digest,
        )
        _take_off(self._base.model)
        return found


def _paged_bytes() -> int:
    """Paged memory that bitsandbytes holds; it never frees it (0.50)."""
    from bitsandbytes.functional import GlobalPageManager

    paged = GlobalPageManager.get_instance().paged_tensors
    return sum(each.numel() * each.element_size() for each in paged)


def _take_off(model: Any) -> None:
    """Takes the adapter off, and what TRL set on the model, so that the next training finds the
    base as it was loaded."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
    for name in ("forward", "peft_config"):
        model.__dict__.pop(name, None)
    model.gradient_checkpointing_disable()
    model.disable_input_require_grads()
