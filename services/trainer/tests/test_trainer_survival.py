"""Kills: the worker's, the service's, both; and cancelling one that does not listen."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tuneproof.adapters import Registry
from tuneproof.servicekit.client import connect
from tuneproof.trainer.v1 import trainer_pb2 as pb
from tuneproof.trainer.v1 import trainer_pb2_grpc
from tuneproof_trainer.main import DESCRIPTOR

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(400),
]  # Imports of torch, on a machine that is busy.


@asynccontextmanager
async def service(
    base: Path, artifacts: Path
) -> AsyncIterator[tuple[trainer_pb2_grpc.TrainerServiceAsyncStub, int]]:
    """A trainer in a process of its own: the stub, and the process's id."""
    announce = artifacts / "announce.json"
    announce.unlink(missing_ok=True)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tuneproof_trainer"),
        *("--model", str(base), "--artifacts", str(artifacts), "--device", "cpu"),
        *("--announce-file", str(announce), "--watch-seconds", "0.02", "--stop-seconds", "0.5"),
        stderr=(artifacts / "service.log").open("ab"),
    )
    try:
        await until(lambda: announce.exists() or process.returncode is not None)
        target = json.loads(announce.read_text())["grpc"]
        async with connect(target, services=[DESCRIPTOR]) as channel:
            yield trainer_pb2_grpc.TrainerServiceStub(channel), process.pid
    finally:
        with suppress(ProcessLookupError):
            # Not `process.terminate()`: that may take a dead child's status before asyncio does.
            os.kill(process.pid, signal.SIGTERM)
        assert await process.wait() in (0, -signal.SIGKILL)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(120):
        while not true():
            await asyncio.sleep(0.02)


def worker(artifacts: Path, run_id: str) -> int:
    """The process id of a run's worker; 0 while there is none."""
    with suppress(FileNotFoundError):
        return int(json.loads((artifacts / "runs" / run_id / "heartbeat.json").read_text())["pid"])
    return 0


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def watch_until(
    stub: trainer_pb2_grpc.TrainerServiceAsyncStub, run_id: str, step: int
) -> pb.Run:
    """Watches a run until it has done so many steps, or has ended."""
    async for message in stub.WatchRun(pb.WatchRunRequest(run_id=run_id)):
        run = message.run
        if run.progress.step >= step or run.state > pb.RUN_STATE_RUNNING:
            return run
    raise AssertionError("the watch ended before the run did")


async def test_a_run_survives_the_death_of_its_worker_and_of_its_service(
    base_folder: Path, artifacts: Path, write_data: Callable[..., dict[str, str]]
) -> None:
    spec = pb.RunSpec(
        data=pb.TrainingData(**write_data()),
        adapter_name="short",
        hyperparameters=pb.Hyperparameters(
            max_steps=40, effective_batch_size=8, rank=4, learning_rate=5e-3
        ),
    )
    async with service(base_folder, artifacts) as (stub, pid):
        await stub.CreateRun(pb.CreateRunRequest(run_id="a", spec=spec))
        await until(lambda: worker(artifacts, "a"))
        first = worker(artifacts, "a")
        os.kill(pid, signal.SIGKILL)
        os.kill(first, signal.SIGKILL)
        await until(lambda: not lives(first))
    async with service(base_folder, artifacts) as (stub, pid):
        await watch_until(stub, "a", 3)
        second = worker(artifacts, "a")
        assert second != first
        os.kill(second, signal.SIGKILL)
        await until(lambda: worker(artifacts, "a") not in (0, second))
        third = worker(artifacts, "a")
        os.kill(pid, signal.SIGKILL)
        assert lives(third)
    async with service(base_folder, artifacts) as (stub, pid):
        run = await watch_until(stub, "a", 1000)
        assert worker(artifacts, "a") == third  # It was found, not started again.
        await stub.CreateRun(pb.CreateRunRequest(run_id="b", spec=spec))
        undisturbed = await watch_until(stub, "b", 1000)
        await stub.CreateRun(pb.CreateRunRequest(run_id="c", spec=spec))
        await until(lambda: worker(artifacts, "c"))
    assert run.state == pb.RUN_STATE_SUCCEEDED, run.reason
    assert undisturbed.state == pb.RUN_STATE_SUCCEEDED, undisturbed.reason
    assert run.adapter_ref == undisturbed.adapter_ref
    assert [str(ref) for ref in Registry(str(artifacts)).list()] == [run.adapter_ref]
    # The last service was told to end, so it put its run back and left no worker.
    assert not lives(worker(artifacts, "c"))
    assert json.loads((artifacts / "runs/c/state.json").read_text())["state"] == "queued"
    assert "Traceback" not in (artifacts / "service.log").read_text()


async def test_a_worker_that_does_not_listen_is_killed(
    base_folder: Path, artifacts: Path, write_data: Callable[..., dict[str, str]]
) -> None:
    spec = pb.RunSpec(data=pb.TrainingData(**write_data()), adapter_name="short")
    async with service(base_folder, artifacts) as (stub, _):
        for run_id in ("frozen", "well"):
            await stub.CreateRun(pb.CreateRunRequest(run_id=run_id, spec=spec))
            await until(lambda run_id=run_id: worker(artifacts, run_id))
            pid = worker(artifacts, run_id)
            if run_id == "frozen":
                os.kill(pid, signal.SIGSTOP)
            run = (await stub.CancelRun(pb.CancelRunRequest(run_id=run_id))).run
            assert run.state == pb.RUN_STATE_CANCELLED
            assert not lives(pid)
    assert Registry(str(artifacts)).list() == ()
