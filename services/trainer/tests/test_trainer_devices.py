"""Several processes share a training: two of gloo on this machine train as one does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tuneproof.adapters import AdapterRef, FolderStorage, Registry, read_base_config
from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof_trainer.bases import Base
from tuneproof_trainer.defaults import complete
from tuneproof_trainer.execution.local import LocalExecutor
from tuneproof_trainer.execution.protocol import Attempt
from tuneproof_trainer.plan.device import Device
from tuneproof_trainer.record import Job, RunState, RunStatus, WorkerEnding, WorkerResult
from tuneproof_trainer.runs.store import RunStore
from tuneproof_trainer.spec import RunSpec

Data = Callable[..., dict[str, str]]
pytestmark = [pytest.mark.process, pytest.mark.faults, pytest.mark.timeout(400)]


class Bench:
    """Attempts at runs of one spec, by any number of processes."""

    def __init__(self, base: Path, artifacts: Path, data: dict[str, str], **asked: Any) -> None:
        self.base, self.artifacts = base, artifacts
        self.store = RunStore(FolderStorage(artifacts))
        given = {
            "rank": 4,
            "dropout": 0.0,
            "learning_rate": 1e-2,
            "effective_batch_size": 8,
            "micro_batch_size": 2,
            "epochs": 2,
        }
        spec = RunSpec(
            data_path=data["path"],
            data_digest=data["digest"],
            adapter_name="short",
            seed=3,
            hyperparameters=Hyperparameters(**given | asked),
        )
        self.spec = complete(spec, Base("tiny", read_base_config(base)), Device(count=2))

    def begin(self, run_id: str, number: int = 1, devices: int = 1, **more: Any) -> Attempt:
        now = datetime.now(UTC)
        status = RunStatus(id=run_id, state=RunState.RUNNING, attempt=number, create_time=now)
        if number == 1:
            self.store.create(run_id, self.spec, status)
        else:
            self.store.advance(status, self.store.version(run_id))
        job = Job(
            run_id=run_id,
            base_folder=str(self.base),
            artifacts=str(self.artifacts),
            device="cpu",
            threads=1,
            devices=devices,
            **{"checkpoint_minutes": 0, **more},
        )
        return Attempt(status, job)

    async def run(self, run_id: str, number: int = 1, **more: Any) -> WorkerResult:
        return await LocalExecutor(self.store).execute(self.begin(run_id, number, **more))

    def losses(self, run_id: str) -> list[float]:
        return [step.loss for step in self.store.metrics(run_id).read()]

    def tensors(self, result: WorkerResult, cache: Path) -> dict[str, Any]:
        from safetensors.numpy import load_file

        ref = AdapterRef.parse(result.adapter_ref)
        folder = Registry(str(self.artifacts)).fetch(ref, cache)
        return load_file(folder / "adapter_model.safetensors")


def largest_difference(mine: dict[str, Any], theirs: dict[str, Any]) -> float:
    assert mine.keys() == theirs.keys()
    return max(float(abs(mine[name] - theirs[name]).max()) for name in mine)


@pytest.mark.parametrize(
    "asked",
    [
        # 22 rows, 16 a step: the last step of a pass has 6 rows in three micro-batches.
        {"effective_batch_size": 16, "validation_share": 0.1},
        {"packing": "padding_free", "effective_batch_size": 4, "epochs": 1},
        {"packing": "bfd", "max_length": 64, "effective_batch_size": 2, "micro_batch_size": 1},
        {"method": "qlora_nf4", "max_steps": 3, "gradient_checkpointing": True},
    ],
    ids=["plain", "padding_free", "bfd", "qlora"],
)
async def test_two_processes_train_as_one(
    base_folder: Path, artifacts: Path, write_data: Data, tmp_path: Path, asked: dict[str, Any]
) -> None:
    bench = Bench(base_folder, artifacts, write_data(), **asked)
    one = await bench.run("one")
    two = await bench.run("two", devices=2)
    assert one.ending is two.ending is WorkerEnding.DONE, (one.reason, two.reason)
    assert len(bench.losses("one")) >= 3
    assert bench.losses("two") == pytest.approx(bench.losses("one"), abs=1e-4)
    assert (one.provenance["devices"], two.provenance["devices"]) == ("1", "2")
    for fact in ("validation_loss", "validation_loss_before"):
        if fact in one.provenance:
            assert float(two.provenance[fact]) == pytest.approx(float(one.provenance[fact]), 1e-4)
    mine, theirs = (bench.tensors(each, tmp_path) for each in (one, two))
    assert largest_difference(mine, theirs) < 1e-4
    assert len(Registry(str(artifacts)).list()) <= 2
