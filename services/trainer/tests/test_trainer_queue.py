"""The queue's rules, by an executor whose attempts end as a script says; and the real one's
endings that need no torch."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.servicekit.errors import WrongState
from tuneproof_trainer.executor import LocalExecutor
from tuneproof_trainer.progress import Step, StepLog, StepReader, last_step
from tuneproof_trainer.queue import RunQueue
from tuneproof_trainer.record import Job, RunFolder, RunState, RunStatus, WorkerEnding, WorkerResult
from tuneproof_trainer.runbook import Runbook, hold_runs
from tuneproof_trainer.spec import RunSpec

pytestmark = pytest.mark.timeout(30)
DONE = WorkerResult(
    ending=WorkerEnding.DONE, adapter_ref="short@sha256:" + "0" * 64, provenance={"a": "b"}
)
KILLED = WorkerResult(ending=WorkerEnding.RETRY, reason="the worker was ended by SIGKILL")
STOPPED = WorkerResult(ending=WorkerEnding.STOPPED, reason="the worker was told to stop")
BAD = WorkerResult(ending=WorkerEnding.BAD_INPUT, reason="line 3 is not JSON")


def job(run_id: str) -> Job:
    return Job(run_id=run_id, base_folder="/none", artifacts="/none", device="cpu", threads=1)


class Script:
    """An executor whose attempts wait until they are told to go on, then end as told."""

    def __init__(self, *results: WorkerResult) -> None:
        self.results = list(results)
        self.begun: list[str] = []
        self.stopped: list[str] = []
        self.go = asyncio.Event()

    async def execute(self, folder: RunFolder, job: Job) -> WorkerResult:
        self.begun.append(job.run_id)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.stopped.append(job.run_id)
            raise
        return self.results.pop(0)


class Bench:
    """A queue over a folder."""

    def __init__(self, runs: Path, script: Any, **options: Any) -> None:
        self.runs = runs
        self.queue = RunQueue(script, job, **options)

    def add(self, run_id: str, state: RunState = RunState.QUEUED, age: int = 0) -> RunFolder:
        created = datetime.now(UTC) - timedelta(hours=age)
        record = RunStatus(id=run_id, state=state, create_time=created)
        spec = RunSpec(adapter_name="short")
        folder = RunFolder.create(self.runs, spec, record)
        self.queue.adopt(folder, spec, record)
        return folder

    async def until(self, run_id: str, *states: RunState) -> RunStatus:
        async with asyncio.timeout(20):
            while self.queue.statuses[run_id].state not in states:
                await self.queue.changed(run_id, self.queue.statuses[run_id], 1.0)
        return self.queue.statuses[run_id]

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


async def test_runs_go_in_order_so_many_at_a_time(tmp_path: Path) -> None:
    script = Script(DONE, DONE, DONE, DONE)
    bench = Bench(tmp_path, script, workers=2)
    for age, run_id in enumerate(("d", "c", "b", "a")):
        bench.add(run_id, age=age)
    await bench.settle()
    assert script.begun == []
    bench.queue.open()
    await bench.settle()
    assert script.begun == ["a", "b"]
    script.go.set()
    ended = await bench.until("d", RunState.SUCCEEDED)
    assert script.begun == ["a", "b", "c", "d"]
    assert ended.adapter_ref == DONE.adapter_ref
    assert RunFolder(tmp_path / "d").status() == ended


async def test_what_was_running_goes_first_after_a_restart(tmp_path: Path) -> None:
    script = Script(DONE, DONE)
    bench = Bench(tmp_path, script)
    bench.add("waits", age=5)
    bench.add("ran", RunState.RUNNING)
    bench.add("over", RunState.FAILED, age=9)
    bench.queue.open()
    script.go.set()
    await bench.until("waits", RunState.SUCCEEDED)
    assert script.begun == ["ran", "waits"]
    assert bench.queue.statuses["over"].state is RunState.FAILED


@pytest.mark.parametrize(
    ("results", "state", "reason", "attempts"),
    [
        ((KILLED, STOPPED, DONE), RunState.SUCCEEDED, "", 3),
        (
            (KILLED, KILLED, KILLED),
            RunState.FAILED,
            "3 workers ended early; the last: the worker",
            3,
        ),
        ((BAD,), RunState.FAILED, "line 3 is not JSON", 1),
    ],
)
async def test_an_attempt_is_repeated_where_that_may_help(
    tmp_path: Path, results: tuple[WorkerResult, ...], state: RunState, reason: str, attempts: int
) -> None:
    script = Script(*results)
    bench = Bench(tmp_path, script, max_attempts=3)
    bench.add("a")
    bench.queue.open()
    script.go.set()
    ended = await bench.until("a", RunState.SUCCEEDED, RunState.FAILED)
    assert (ended.state, len(script.begun)) == (state, attempts)
    assert ended.reason.startswith(reason) if reason else ended.reason == ""
    assert ended.end_time is not None


async def test_an_executor_that_fails_fails_the_run_and_not_the_queue(tmp_path: Path) -> None:
    class Broken(Script):
        async def execute(self, folder: RunFolder, job: Job) -> WorkerResult:
            if job.run_id == "a":
                raise OSError("no more processes")
            return DONE

    bench = Bench(tmp_path, Broken())
    bench.add("a", age=1)
    bench.add("b")
    bench.queue.open()
    await bench.until("b", RunState.SUCCEEDED)
    assert "no more processes" in bench.queue.statuses["a"].reason
    assert bench.queue.statuses["a"].state is RunState.FAILED


async def test_cancelling_stops_the_worker_or_leaves_the_queue(tmp_path: Path) -> None:
    script = Script()
    bench = Bench(tmp_path, script)
    bench.add("runs", age=1)
    bench.add("waits")
    bench.queue.open()
    await bench.settle()
    await bench.queue.cancel("waits")
    await bench.queue.cancel("runs")
    assert (script.begun, script.stopped) == (["runs"], ["runs"])
    for run_id in ("runs", "waits"):
        assert RunFolder(tmp_path / run_id).status().state is RunState.CANCELLED


async def test_a_worker_that_was_faster_than_its_cancellation_has_succeeded(
    tmp_path: Path,
) -> None:
    script = Script()
    bench = Bench(tmp_path, script)
    folder = bench.add("a")
    bench.queue.open()
    await bench.settle()
    folder.write(DONE)
    runbook = Runbook(tmp_path, None, None, bench.queue)  # type: ignore[arg-type]
    with pytest.raises(WrongState, match=r"run a has ended \(succeeded\)"):
        await runbook.cancel("a")
    assert bench.queue.statuses["a"].adapter_ref == DONE.adapter_ref


async def test_closing_puts_what_runs_back_into_the_queue(tmp_path: Path) -> None:
    script = Script()
    bench = Bench(tmp_path, script)
    bench.add("a")
    bench.queue.open()
    await bench.settle()
    await bench.queue.close()
    assert script.stopped == ["a"]
    assert RunFolder(tmp_path / "a").status().state is RunState.QUEUED


@pytest.mark.process
async def test_a_worker_whose_data_is_gone_says_so(tmp_path: Path, base_folder: Path) -> None:
    spec = RunSpec(data_path="data/gone.jsonl", data_digest="sha256:" + "0" * 64)
    status = RunStatus(id="a", state=RunState.RUNNING, create_time=datetime.now(UTC))
    folder = RunFolder.create(tmp_path / "runs", spec, status)
    work = Job(
        run_id="a", base_folder=str(base_folder), artifacts=str(tmp_path), device="cpu", threads=1
    )
    result = await LocalExecutor().execute(folder, work)
    assert result.ending is WorkerEnding.BAD_INPUT
    assert result.reason == "no data at data/gone.jsonl in the artifact store"
    # Its last word counts when no service was there to hear it.
    folder.log.unlink()
    assert await LocalExecutor().execute(folder, work) == result
    assert not folder.log.exists()


@pytest.mark.process
async def test_a_worker_that_cannot_even_start_is_told_by_its_log(
    tmp_path: Path, base_folder: Path
) -> None:
    status = RunStatus(id="a", state=RunState.RUNNING, create_time=datetime.now(UTC))
    folder = RunFolder.create(tmp_path, RunSpec(), status)
    (folder.path / "spec.json").write_text("{")
    result = await LocalExecutor().execute(folder, job("a"))
    assert result.ending is WorkerEnding.BAD_INPUT
    assert "spec.json of run a cannot be read" in result.reason


def test_one_trainer_has_a_folder_of_runs(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with (
        hold_runs(runs),
        pytest.raises(WrongState, match="another trainer uses"),
        hold_runs(runs),
    ):
        pass
    with hold_runs(runs):
        pass


def test_steps_are_followed_across_attempts(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    steps = [Step(number, 9, 1.5, 10.0, 2.0) for number in range(1, 10)]
    reader = StepReader(path)
    assert (reader.read(), last_step(path)) == ([], None)
    log = StepLog(path)
    for step in steps[:3]:
        log.append(step)
    assert (reader.read(), reader.read()) == (steps[:3], [])
    with path.open("ab") as file:
        file.write(b'{"step": 4, "tot')  # A line that is being written.
    assert (reader.read(), last_step(path)) == ([], steps[2])
    path.unlink()
    again = StepLog(path)
    again.append(steps[0])
    assert (reader.read(), last_step(path)) == (steps[:1], steps[0])


def test_the_steps_of_a_spec() -> None:
    def steps(examples: int, **more: Any) -> int:
        values = {"epochs": 0, "effective_batch_size": 8, "micro_batch_size": 4} | more
        return RunSpec(hyperparameters=Hyperparameters(**values)).steps_for(examples)

    assert steps(24, epochs=1) == 3
    assert steps(25, epochs=2) == 8
    assert steps(24, epochs=0.5) == 2
    assert steps(24, epochs=3, max_steps=5) == 5
    assert steps(24, epochs=1, max_steps=5) == 3
    assert steps(24, max_steps=5) == 5
    assert steps(1, epochs=0.1) == 1
