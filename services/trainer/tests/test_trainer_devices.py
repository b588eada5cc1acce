"""Several processes share a training: two of gloo on this machine train as one does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
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

from .sharing_rank import CASES, trained
from .trainer_processes import until

Data = Callable[..., dict[str, str]]
pytestmark = [pytest.mark.process, pytest.mark.faults, pytest.mark.timeout(600)]


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
            "epochs": 0,
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

    def start(self, run_id: str, number: int = 1, **more: Any) -> asyncio.Task[WorkerResult]:
        return asyncio.create_task(self.run(run_id, number, **more))

    def processes(self, run_id: str) -> list[int]:
        """Those of a run's newest worker, the first one first."""
        found = []
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = place.read_bytes().split(b"\0")
                if str(self.artifacts).encode() in words and run_id.encode() in words:
                    found.append(int(place.parent.name))
        return sorted(found)

    def losses(self, run_id: str) -> list[float]:
        return [step.loss for step in self.store.metrics(run_id).read()]

    def tensors(self, result: WorkerResult, cache: Path) -> dict[str, Any]:
        from safetensors.numpy import load_file

        ref = AdapterRef.parse(result.adapter_ref)
        folder = Registry(str(self.artifacts)).fetch(ref, cache)
        return load_file(folder / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def shared(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes made of every case, in a folder by rank."""
    target = tmp_path_factory.mktemp("shared")
    program = Path(__file__).with_name("sharing_rank.py")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        subprocess.Popen([sys.executable, program, str(rank), str(port), base_folder, target])
        for rank in (0, 1)
    ]
    try:
        assert [process.wait(300) for process in reversed(processes)] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return target


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(
    base_folder: Path, tmp_path: Path, shared: Path, case: str
) -> None:
    from safetensors.torch import load_file

    one = trained(case, base_folder, tmp_path)
    first, second = (json.loads((shared / rank / f"{case}.json").read_text()) for rank in "01")
    assert first == second
    assert first["rows"] == one.result.rows
    assert len(one.losses) == 4
    assert first["losses"] == pytest.approx(one.losses, abs=1e-4)
    alone = one.result.validated.losses if one.result.validated else {}
    assert list(first["validated"].values()) == pytest.approx(list(alone.values()), abs=1e-4)
    mine, theirs = one.tensors(), load_file(shared / "0" / case / one.weights.name)
    assert mine.keys() == theirs.keys()
    assert max(float((mine[name] - theirs[name]).abs().max()) for name in mine) < 1e-4
    assert not (shared / "1" / case / one.weights.name).exists()


async def test_a_training_goes_on_when_one_of_its_processes_is_killed(
    base_folder: Path, artifacts: Path, write_data: Data, tmp_path: Path
) -> None:
    """And where it is told to stop, one process goes on from what two have saved."""
    bench = Bench(base_folder, artifacts, write_data(), max_steps=80, learning_rate=1e-3)
    one = await bench.run("one", checkpoint_steps=0)

    killed = bench.start("two", devices=2, checkpoint_steps=3)
    await until(lambda: killed.done() or bench.store.checkpoint_step("two") >= 6)
    assert not killed.done(), killed.result()
    first, *others = bench.processes("two")
    os.kill(others[0], signal.SIGKILL)
    result = await killed
    assert (result.ending, result.reason) == (
        WorkerEnding.RETRY,
        "process 2 of 2 was ended by SIGKILL",
    )
    assert not Path(f"/proc/{first}").exists()
    assert not bench.processes("two")

    stopped = bench.start("two", 2, devices=2, checkpoint_steps=0)
    await until(lambda: stopped.done() or len(bench.losses("two")) >= 20)
    assert not stopped.done(), stopped.result()
    stopped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopped
    assert bench.store.read(WorkerResult, "two", 2).ending is WorkerEnding.STOPPED
    assert bench.store.checkpoint_step("two") >= 20
    assert not bench.processes("two")

    two = await bench.run("two", 3)
    assert int(two.provenance["resumed_from_step"]) >= 20
    assert bench.losses("two") == pytest.approx(bench.losses("one"), abs=1e-4)
    mine, theirs = (bench.tensors(each, tmp_path) for each in (one, two))
    assert max(float(abs(mine[name] - theirs[name]).max()) for name in mine) < 1e-3
    assert len(Registry(str(artifacts)).list()) == 2


async def test_two_workers_of_an_indexed_job_train_together(
    base_folder: Path, artifacts: Path, write_data: Data, tmp_path: Path
) -> None:
    """Each pod of the Job runs the same command; its index and the first one's host differ."""
    bench = Bench(base_folder, artifacts, write_data(), max_steps=4)
    attempt = bench.begin("nodes", nodes=2)
    bench.store.write(attempt.job, "nodes", 1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    pods = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tuneproof_trainer.worker", str(artifacts), "nodes", "1"),
            env={**os.environ, **variables, "JOB_COMPLETION_INDEX": str(index)},
        )
        for index in (1, 0)
    ]
    assert [await pod.wait() for pod in pods] == [0, 0]
    result = bench.store.read(WorkerResult, "nodes", 1)
    assert result.provenance["devices"] == "2"
    assert [str(ref) for ref in Registry(str(artifacts)).list()] == [result.adapter_ref]
