"""Trainers in processes of their own, for tests that kill them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tuneproof.adapters import open_storage
from tuneproof.servicekit.client import connect
from tuneproof.servicekit.errors import TuneproofError
from tuneproof.servicekit.processes import is_running, pid_of
from tuneproof.trainer.v1 import trainer_pb2 as pb
from tuneproof.trainer.v1 import trainer_pb2_grpc
from tuneproof_trainer.main import DESCRIPTOR
from tuneproof_trainer.record import Heartbeat
from tuneproof_trainer.runs.store import RunStore

FULL = bool(os.environ.get("TUNEPROOF_FULL"))
"""Whether tests run as long as `make verify-train` has them run, not as short as CI does."""


@dataclass
class Trainer:
    """A trainer that runs."""

    stub: trainer_pb2_grpc.TrainerServiceAsyncStub
    pid: int
    log: Path
    store: RunStore

    async def create(self, run_id: str, spec: pb.RunSpec) -> None:
        await self.stub.CreateRun(pb.CreateRunRequest(run_id=run_id, spec=spec))

    async def get(self, run_id: str) -> pb.Run:
        return (await self.stub.GetRun(pb.GetRunRequest(run_id=run_id))).run

    async def watch_until(self, run_id: str, step: int) -> pb.Run:
        """Watches a run until it has done so many steps, or has ended."""
        async for message in self.stub.WatchRun(pb.WatchRunRequest(run_id=run_id)):
            run = message.run
            if run.progress.step >= step or run.state > pb.RUN_STATE_RUNNING:
                return run
        raise AssertionError("the watch ended before the run did")

    def worker(self, run_id: str, attempt: int = 0) -> str:
        """The process of a run's newest worker, or of an attempt's; empty while there is none."""
        with suppress(TuneproofError):
            number = attempt or self.store.newest(run_id).attempt
            beat = self.store.read(Heartbeat, run_id, number)
            return beat.process if beat and is_running(beat.process) else ""
        return ""

    async def kill_worker(self, run_id: str, number: signal.Signals = signal.SIGKILL) -> str:
        """Waits for a run's worker, and signals its process group."""
        await until(lambda: self.worker(run_id))
        process = self.worker(run_id)
        with suppress(ProcessLookupError):
            os.killpg(pid_of(process), number)
        return process


@asynccontextmanager
async def trainer(
    base: Path, artifacts: str, folder: Path, *options: str
) -> AsyncIterator[Trainer]:
    """A trainer over a store, given as a URL."""
    folder.mkdir(parents=True, exist_ok=True)
    announce, log = folder / "announce.json", folder / "service.log"
    announce.unlink(missing_ok=True)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tuneproof_trainer"),
        *("--model", str(base), "--artifacts", artifacts, "--device", "cpu"),
        *("--announce-file", str(announce), "--watch-seconds", "0.05", "--stop-seconds", "3"),
        *("--sync-seconds", "0.2", *options),
        stderr=log.open("ab"),
    )
    try:
        await until(lambda: announce.exists() or process.returncode is not None)
        assert announce.exists(), log.read_text()
        target = json.loads(announce.read_text())["grpc"]
        async with connect(target, services=[DESCRIPTOR]) as channel:
            stub = trainer_pb2_grpc.TrainerServiceStub(channel)
            yield Trainer(stub, process.pid, log, RunStore(open_storage(artifacts)))
    finally:
        with suppress(ProcessLookupError):
            # Not `process.terminate()`: that may take a dead child's status before asyncio does.
            os.kill(process.pid, signal.SIGCONT)
            os.kill(process.pid, signal.SIGTERM)
        assert await process.wait() in (0, -signal.SIGKILL)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(120):
        while not true():
            await asyncio.sleep(0.02)


def spec(data: dict[str, str], steps: int = 40, **more: object) -> pb.RunSpec:
    asked = {
        "max_steps": steps,
        "effective_batch_size": 8,
        "rank": 4,
        "learning_rate": 5e-3,
        "dropout": 0.1,
    }
    return pb.RunSpec(
        data=pb.TrainingData(**data),
        adapter_name="short",
        hyperparameters=pb.Hyperparameters(**asked | more),  # type: ignore[arg-type]
    )
