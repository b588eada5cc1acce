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

from tuneproof.adapters import AdapterRef, FolderStorage, Registry
from tuneproof.servicekit.processes import pid_of
from tuneproof_trainer.execution.local import LocalExecutor
from tuneproof_trainer.execution.protocol import Attempt
from tuneproof_trainer.record import (
    Heartbeat,
    Job,
    RunState,
    RunStatus,
    WorkerEnding,
    WorkerResult,
)
from tuneproof_trainer.runs.store import RunStore


@dataclass(frozen=True)
class Workers:
    """Starts workers over one base; each run has an artifact store of its own."""

    base: Path
    data: Data
    steps: int
    scratch: Path
    device: str = "auto"

    def store(self, run_id: str) -> RunStore:
        """The store of a run."""
        return RunStore(FolderStorage(self.scratch / run_id))

    def new(self, run_id: str, setting: Setting) -> Attempt:
        """The first attempt at a run that nothing executes yet."""
        artifacts = self.scratch / run_id
        digest = self.data.write(artifacts / "data" / "train.jsonl")
        spec = setting.spec(self.base, digest=digest, steps=self.steps, length=self.data.tokens)
        status = RunStatus(
            id=run_id, state=RunState.RUNNING, attempt=1, create_time=datetime.now(UTC)
        )
        self.store(run_id).create(run_id, spec, status)
        job = Job(
            run_id=run_id,
            base_folder=str(self.base),
            artifacts=str(artifacts),
            device=self.device,
            threads=1,
            checkpoint_steps=max(1, self.steps // 4),
        )
        return Attempt(status, job)

    def again(self, attempt: Attempt) -> Attempt:
        """The next attempt at the same run."""
        store, run_id = self.store(attempt.run_id), attempt.run_id
        status = attempt.status.model_copy(update={"attempt": attempt.number + 1})
        store.advance(status, store.version(run_id))
        return Attempt(status, attempt.job)

    async def execute(self, attempt: Attempt) -> WorkerResult:
        """Starts the attempt's worker, and waits for its end."""
        return await LocalExecutor(self.store(attempt.run_id)).execute(attempt)

    def adapter(self, run_id: str, result: WorkerResult) -> Path:
        """The folder of what a run committed."""
        if result.ending is not WorkerEnding.DONE:
            for log in (self.scratch / run_id / "runs" / run_id / "logs").glob("*.txt"):
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
    steps = workers.store("whole").metrics("whole").read()
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
    whole = await workers.execute(workers.new("whole", setting))
    first = workers.new("killed", setting)
    store = workers.store("killed")
    attempt = asyncio.create_task(workers.execute(first))
    while not attempt.done() and len(store.metrics("killed").read()) < workers.steps // 2:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    heartbeat = store.read(Heartbeat, "killed", first.number)
    if heartbeat is not None and not attempt.done():
        os.killpg(pid_of(heartbeat.process), signal.SIGKILL)
    ended = await attempt
    if ended.ending is not WorkerEnding.RETRY:
        raise RuntimeError(f"the killed worker ended {ended.ending}: {ended.reason}")
    return whole, await workers.execute(workers.again(first))


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
    result = asyncio.run(workers.execute(workers.new("large", setting)))
    print(json.dumps({"ending": result.ending, "reason": result.reason}))
    told = result.ending is WorkerEnding.BAD_INPUT and "micro_batch_size" in result.reason
    return {"out_of_memory_is_told": int(told)}
