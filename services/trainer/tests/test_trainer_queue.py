"""The queue's rules, by an executor whose attempts end as a script says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tuneproof.adapters import FolderStorage
from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.servicekit.errors import Unavailable, WrongState
from tuneproof.servicekit.processes import this_process
from tuneproof_trainer.execution.protocol import Attempt
from tuneproof_trainer.progress import Step
from tuneproof_trainer.record import (
    Heartbeat,
    Job,
    RunState,
    RunStatus,
    WorkerEnding,
    WorkerResult,
)
from tuneproof_trainer.runs.leases import Leases
from tuneproof_trainer.runs.queue import RunQueue
from tuneproof_trainer.runs.records import Records
from tuneproof_trainer.runs.runbook import Runbook
from tuneproof_trainer.runs.store import RunStore
from tuneproof_trainer.spec import RunSpec

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]
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

    name = "local"
    outlives_service = False

    def __init__(self, *results: WorkerResult) -> None:
        self.results = list(results)
        self.begun: list[str] = []
        self.stopped: list[tuple[str, bool]] = []
        self.go = asyncio.Event()

    async def execute(self, attempt: Attempt) -> WorkerResult:
        self.begun.append(attempt.run_id)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.stopped.append((attempt.run_id, attempt.saves))
            raise
        return self.results.pop(0)

    async def follow(self, attempt: Attempt) -> WorkerResult:
        raise AssertionError("nothing to follow")

    def can_follow(self, status: RunStatus, heartbeat: Heartbeat | None) -> bool:
        return False

    def waits_for(self, attempt: Attempt) -> str | None:
        return None


class Away(FolderStorage):
    """A store that can be out of reach."""

    away = False

    def _at(self, path: str) -> Path:
        if self.away:
            raise Unavailable("the store is away")
        return super()._at(path)


class Bench:
    """One trainer's queue over a folder."""

    def __init__(self, root: Path, script: Any, lease: float = 30, **options: Any) -> None:
        self.storage = Away(root)
        self.store = RunStore(self.storage)
        self.records = Records(self.store)
        self.queue = RunQueue(
            self.records, script, job, Leases(lease), sync_seconds=0.02, **options
        )

    def add(
        self, run_id: str, state: RunState = RunState.QUEUED, age: int = 0, **more: Any
    ) -> None:
        created = datetime.now(UTC) - timedelta(hours=age)
        record = RunStatus(id=run_id, state=state, create_time=created, **more)
        assert self.store.create(run_id, RunSpec(adapter_name="short"), record)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        await self.queue.open()
        try:
            yield
        finally:
            await self.queue.close()

    async def until(self, run_id: str, *states: RunState) -> RunStatus:
        await until(lambda: self.store.newest(run_id).state in states)
        await until(lambda: self.records[run_id].status.state in states)
        return self.records[run_id].status


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


async def test_runs_go_in_order_so_many_at_a_time(tmp_path: Path) -> None:
    script = Script(DONE, DONE, DONE, DONE)
    bench = Bench(tmp_path, script, workers=2)
    for age, run_id in enumerate(("d", "c", "b", "a")):
        bench.add(run_id, age=age)
    with pytest.raises(Unavailable, match="the service is starting"):
        await bench.queue.check()
    async with bench.opened():
        await bench.queue.check()
        await asyncio.sleep(0.1)
        assert script.begun == ["a", "b"]
        script.go.set()
        ended = await bench.until("d", RunState.SUCCEEDED)
    assert script.begun == ["a", "b", "c", "d"]
    assert (ended.adapter_ref, ended.attempt) == (DONE.adapter_ref, 1)
    assert bench.store.newest("d") == ended
    with pytest.raises(Unavailable, match="is stopping"):
        await bench.queue.check()


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
        ((STOPPED, STOPPED, STOPPED, KILLED, KILLED, DONE), RunState.SUCCEEDED, "", 6),
    ],
)
async def test_an_attempt_is_repeated_where_that_may_help(
    tmp_path: Path, results: tuple[WorkerResult, ...], state: RunState, reason: str, attempts: int
) -> None:
    script = Script(*results)
    bench = Bench(tmp_path, script, max_attempts=3)
    bench.add("a")
    script.go.set()
    async with bench.opened():
        ended = await bench.until("a", RunState.SUCCEEDED, RunState.FAILED)
    assert (ended.state, len(script.begun), ended.attempt) == (state, attempts, attempts)
    assert ended.reason.startswith(reason) if reason else ended.reason == ""
    assert ended.end_time is not None


async def test_attempts_that_get_on_are_not_counted_together(tmp_path: Path) -> None:
    class Progressing(Script):
        async def execute(self, attempt: Attempt) -> WorkerResult:
            (folder := tmp_path / f"checkpoint-{attempt.number}").mkdir()
            bench.store.checkpoints("a").save(f"{attempt.number:08d}", folder)
            return await super().execute(attempt)

    script = Progressing(KILLED, KILLED, KILLED, KILLED, DONE)
    bench = Bench(tmp_path, script, max_attempts=2)
    bench.add("a")
    script.go.set()
    async with bench.opened():
        ended = await bench.until("a", RunState.SUCCEEDED, RunState.FAILED)
    assert (ended.state, ended.attempt, ended.checkpoint_step) == (RunState.SUCCEEDED, 5, 4)


async def test_an_executor_that_fails_fails_the_run_and_not_the_queue(tmp_path: Path) -> None:
    class Broken(Script):
        async def execute(self, attempt: Attempt) -> WorkerResult:
            if attempt.run_id == "a":
                raise OSError("no more processes")
            return DONE

    bench = Bench(tmp_path, Broken())
    bench.add("a", age=1)
    bench.add("b")
    async with bench.opened():
        await bench.until("b", RunState.SUCCEEDED)
    failed = bench.store.newest("a")
    assert failed.state is RunState.FAILED
    assert "no more processes" in failed.reason


async def test_cancelling_stops_the_worker_or_leaves_the_queue(tmp_path: Path) -> None:
    script = Script()
    bench = Bench(tmp_path, script)
    bench.add("runs", age=1)
    bench.add("waits")
    async with bench.opened():
        await until(lambda: script.begun)
        await bench.queue.cancel("waits")
        await bench.queue.cancel("runs")
        await bench.queue.cancel("runs")
    assert (script.begun, script.stopped) == (["runs"], [("runs", False)])
    for run_id in ("runs", "waits"):
        assert bench.store.newest(run_id).state is RunState.CANCELLED


async def test_a_worker_that_was_faster_than_its_cancellation_has_succeeded(
    tmp_path: Path,
) -> None:
    script = Script()
    bench = Bench(tmp_path, script)
    bench.add("a")
    async with bench.opened():
        await until(lambda: script.begun)
        bench.store.write(DONE, "a", 1)
        runbook = Runbook(bench.records, {}, bench.storage, bench.queue)
        with pytest.raises(WrongState, match=r"run a has ended \(succeeded\)"):
            await runbook.cancel("a")
    assert bench.store.newest("a").adapter_ref == DONE.adapter_ref


async def test_closing_puts_what_runs_back_into_the_queue(tmp_path: Path) -> None:
    script = Script()
    bench = Bench(tmp_path, script)
    bench.add("a")
    async with bench.opened():
        await until(lambda: script.begun)
    assert script.stopped == [("a", True)]
    assert bench.store.newest("a").state is RunState.QUEUED


@pytest.mark.parametrize("turns", range(6))
async def test_closing_at_the_moment_of_a_change_comes_to_its_end(
    tmp_path: Path, turns: int
) -> None:
    """`asyncio.wait_for` of Python 3.11 loses a cancellation that comes together with the event."""
    bench = Bench(tmp_path, Script())
    await bench.queue.open()
    await asyncio.sleep(0.015)
    bench.queue.nudge()
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await bench.queue.close()


async def test_trainers_share_the_runs_of_a_store(tmp_path: Path) -> None:
    scripts = [Script(*[DONE] * 6) for _ in range(2)]
    one, other = (
        Bench(tmp_path, script, replica=f"trainer-{number}")
        for number, script in enumerate(scripts)
    )
    for number in range(6):
        one.add(f"run-{number}")
    async with one.opened(), other.opened():
        await until(lambda: all(script.begun for script in scripts))
        for script in scripts:
            script.go.set()
        for number in range(6):
            await one.until(f"run-{number}", RunState.SUCCEEDED)
            await other.until(f"run-{number}", RunState.SUCCEEDED)
    begun = [run_id for script in scripts for run_id in script.begun]
    assert sorted(begun) == [f"run-{number}" for number in range(6)]


async def test_a_trainer_goes_on_with_what_another_one_left(tmp_path: Path) -> None:
    """Its worker ended well, was killed, fell silent, or is alive elsewhere."""
    script = Script(DONE, DONE)
    bench = Bench(tmp_path, script, lease=3)
    gone = f"{this_process().rpartition('/')[0]}/1"
    for run_id in ("ended", "killed", "silent", "alive"):
        bench.add(run_id, RunState.RUNNING, attempt=1, executor="local", replica_process=gone)
    bench.store.write(DONE, "ended", 1)

    def beat(run_id: str, sequence: int, process: str) -> None:
        now = datetime.now(UTC)
        heartbeat = Heartbeat(process=process, sequence=sequence, phase="training", time=now)
        bench.store.write(heartbeat, run_id, 1)

    beat("killed", 7, gone)
    script.go.set()
    async with bench.opened():
        sequence = 0
        while bench.store.newest("silent").state is not RunState.SUCCEEDED:
            beat("alive", sequence := sequence + 1, "elsewhere/pid:[1]/7/8")
            await asyncio.sleep(0.1)
        for run_id in ("ended", "killed"):
            await bench.until(run_id, RunState.SUCCEEDED)
        assert bench.store.newest("alive").state is RunState.RUNNING
        await bench.queue.cancel("alive")
    assert sorted(script.begun) == ["killed", "silent"]
    assert bench.store.newest("ended").attempt == 1
    assert bench.store.newest("killed").attempt == 2
    assert bench.store.newest("alive").state is RunState.CANCELLED


async def test_a_worker_of_ours_that_falls_silent_or_is_taken_over_is_stopped(
    tmp_path: Path,
) -> None:
    script = Script(DONE)
    bench = Bench(tmp_path, script, lease=0.2)
    bench.add("a")
    async with bench.opened():
        await until(lambda: len(script.begun) > 1)
        assert script.stopped[0] == ("a", False)
        status = bench.store.newest("a")
        assert "no sign of life" in bench.store.status("a", bench.store.version("a") - 1).reason
        taken = status.model_copy(update={"attempt": status.attempt + 1, "replica": "other"})
        assert bench.store.advance(taken, bench.store.version("a"))
        await until(lambda: len(script.stopped) > 1)


async def test_a_store_that_is_away_stops_nothing(tmp_path: Path) -> None:
    script = Script(DONE, DONE)
    bench = Bench(tmp_path, script)
    bench.add("a", age=1)
    bench.add("b")
    async with bench.opened():
        await until(lambda: script.begun)
        bench.storage.away = True
        script.go.set()
        await asyncio.sleep(0.1)
        with pytest.raises(Unavailable, match="the store is away"):
            await bench.queue.check()
        bench.storage.away = False
        await bench.until("b", RunState.SUCCEEDED)
        await bench.queue.check()
    assert script.begun == ["a", "b"]
    assert bench.store.newest("a").attempt == 1


async def test_all_watchers_of_a_run_see_every_loss_and_read_it_once(tmp_path: Path) -> None:
    script = Script(DONE)
    bench = Bench(tmp_path, script)
    bench.add("a")
    runbook = Runbook(bench.records, {}, bench.storage, bench.queue, poll_seconds=0.01)

    async def watch(after: int) -> list[int]:
        views = [view async for view in runbook.watch("a", after)]
        assert views[-1].status.state is RunState.SUCCEEDED
        return [step.step for view in views for step in view.losses]

    async with bench.opened():
        watchers = [asyncio.create_task(watch(after)) for after in range(20)]
        metrics = bench.store.metrics("a")
        for first in range(1, 41, 4):
            metrics.write([Step(first + more, 40, 1.0, 1.0, 1.0) for more in range(4)])
            await asyncio.sleep(0.002)
        script.go.set()
        for after, seen in enumerate(await asyncio.gather(*watchers)):
            assert seen == list(range(after + 1, 41))


async def test_a_thousand_runs_are_listed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Script())
    for number in range(1000):
        bench.add(f"run-{number}", RunState.SUCCEEDED, age=number)
    runbook = Runbook(bench.records, {}, bench.storage, bench.queue)
    async with bench.opened():
        pages = [await runbook.list_page(400, "")]
        while pages[-1][1]:
            pages.append(await runbook.list_page(400, pages[-1][1]))
    listed = [view.status.id for views, _ in pages for view in views]
    assert listed == [f"run-{number}" for number in range(1000)]
    assert [len(views) for views, _ in pages] == [400, 400, 200]


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
