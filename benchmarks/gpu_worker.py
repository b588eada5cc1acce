"""The trainer's worker on a GPU, as the service starts it: killed and started again, out of memory,
and its adapter in plain peft."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from gpu_bases import Data
from gpu_training import Setting

from tuneproof.adapters import AdapterRef, Registry
from tuneproof_trainer.executor import LocalExecutor
from tuneproof_trainer.progress import StepReader, last_step
from tuneproof_trainer.record import (
    Job,
    RunFolder,
    RunState,
    RunStatus,
    WorkerEnding,
    WorkerResult,
)


@dataclass(frozen=True)
class Workers:
    """Starts workers over one base; each run has an artifact store of its own."""

    base: Path
    data: Data
    steps: int
    scratch: Path
    device: str = "auto"

    def new(self, run_id: str, setting: Setting) -> tuple[RunFolder, Job]:
        """A run that nothing executes yet."""
        artifacts = self.scratch / run_id
        digest = self.data.write(artifacts / "data" / "train.jsonl")
        spec = setting.spec(self.base, digest=digest, steps=self.steps, length=self.data.tokens)
        status = RunStatus(id=run_id, state=RunState.QUEUED, create_time=datetime.now(UTC))
        folder = RunFolder.create(artifacts / "runs", spec, status)
        job = Job(
            run_id=run_id,
            base_folder=str(self.base),
            artifacts=str(artifacts),
            device=self.device,
            threads=1,
        )
        return folder, job

    def adapter(self, run_id: str, result: WorkerResult) -> Path:
        """The folder of what a run committed."""
        if result.ending is not WorkerEnding.DONE:
            log = self.scratch / run_id / "runs" / run_id / "log.txt"
            print(log.read_text(errors="replace")[-4000:], file=sys.stderr)
            raise RuntimeError(f"run {run_id} ended {result.ending}: {result.reason}")
        registry = Registry(str(self.scratch / run_id))
        return registry.fetch(AdapterRef.parse(result.adapter_ref), self.scratch / run_id / "cache")


def survival(workers: Workers, setting: Setting) -> dict[str, Any]:
    """A run to its end, and one whose worker is killed half-way and started again."""
    whole, resumed = asyncio.run(_survive(workers, setting))
    first, second = workers.adapter("whole", whole), workers.adapter("killed", resumed)
    facts, again = whole.provenance, resumed.provenance
    loss = abs(float(facts["final_loss"]) - float(again["final_loss"]))
    steps = StepReader(workers.scratch / "whole" / "runs" / "whole" / "metrics.jsonl").read()
    return {
        "load_seconds": float(facts["load_seconds"]),
        "train_seconds": float(facts["train_seconds"]),
        "tokens_per_s": median(step.tokens_per_second for step in steps[2:]),
        "peak_gib": int(facts["peak_gpu_bytes"]) / 2**30,
        "first_loss": float(facts["first_loss"]),
        "final_loss": float(facts["final_loss"]),
        "resumed_equal_digest": int(whole.adapter_ref == resumed.adapter_ref),
        "resumed_loss_difference": loss,
        "resumed_weight_difference": _difference(first, second),
        **_in_plain_peft(workers, first),
    }


async def _survive(workers: Workers, setting: Setting) -> tuple[WorkerResult, WorkerResult]:
    executor = LocalExecutor()
    whole = await executor.execute(*workers.new("whole", setting))
    folder, job = workers.new("killed", setting)
    attempt = asyncio.create_task(executor.execute(folder, job))
    while not attempt.done() and _steps_done(folder) < workers.steps // 2:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    heartbeat = folder.heartbeat()
    if heartbeat is not None and not attempt.done():
        os.killpg(heartbeat.pid, signal.SIGKILL)
    ended = await attempt
    if ended.ending is not WorkerEnding.RETRY:
        raise RuntimeError(f"the killed worker ended {ended.ending}: {ended.reason}")
    return whole, await executor.execute(folder, job)


def _steps_done(folder: RunFolder) -> int:
    step = last_step(folder.metrics)
    return step.step if step else 0


def _difference(first: Path, second: Path) -> float:
    """The largest difference of two adapters' weights, in units of the largest weight."""
    from safetensors.torch import load_file

    one, other = (load_file(each / "adapter_model.safetensors") for each in (first, second))
    largest = max(float(each.abs().max()) for each in one.values())
    return max(float((one[name] - other[name]).abs().max()) for name in one) / largest


def _in_plain_peft(workers: Workers, adapter: Path) -> dict[str, float]:
    """What an adapter changes when transformers and peft alone load it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    on_gpu = torch.cuda.is_available()
    tokenizer = AutoTokenizer.from_pretrained(workers.base)
    prompt = tokenizer.apply_chat_template(
        list(workers.data.messages[0][:-1]), add_generation_prompt=True, return_dict=False
    )
    model = AutoModelForCausalLM.from_pretrained(
        workers.base,
        dtype=torch.bfloat16 if on_gpu else torch.float32,
        device_map={"": 0} if on_gpu else None,
    )
    ids = torch.tensor([prompt], device=model.device)
    with torch.no_grad():
        before = model(ids).logits[0, -1].float()
        tuned = PeftModel.from_pretrained(model, adapter)
        after = tuned(ids).logits[0, -1].float()
    missing = sum(
        "lora_B" in name and not bool(each.any()) for name, each in tuned.state_dict().items()
    )
    return {
        "peft_logits_changed_by": float((after - before).abs().max()),
        "peft_modules_without_effect": missing,
    }


def out_of_memory(workers: Workers, setting: Setting) -> dict[str, Any]:
    """What the worker says of a setting that no GPU of today holds."""
    result = asyncio.run(LocalExecutor().execute(*workers.new("large", setting)))
    print(json.dumps({"ending": result.ending, "reason": result.reason}))
    told = result.ending is WorkerEnding.BAD_INPUT and "micro_batch_size" in result.reason
    return {"out_of_memory_is_told": int(told)}
