"""Several trainers on one store, a folder or S3; kills at any moment; a store that goes away."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tuneproof.adapters import Registry
from tuneproof.adapters.testing_s3 import MISSING, S3, s3_server, s3_tools
from tuneproof.servicekit.processes import is_running, pid_of
from tuneproof.trainer.v1 import trainer_pb2 as pb

from .trainer_processes import FULL, spec, trainer, until

Data = Callable[..., dict[str, str]]
pytestmark = [pytest.mark.process, pytest.mark.faults, pytest.mark.timeout(600)]

AWAY_SECONDS = 60 if FULL else 20
KILLS = 5 if FULL else 2
SAVING = ("--checkpoint-steps", "3", "--checkpoint-minutes", "0")


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    if (script := s3_tools()) is None:
        pytest.skip(MISSING)
    with s3_server(script, tmp_path / "s3") as (server, variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, artifacts: Path, write_data: Data) -> str:
    """The URL of a store that holds the data."""
    write_data()
    if request.param == "folder":
        return str(artifacts)
    server: S3 = request.getfixturevalue("s3")
    shutil.copytree(artifacts, server.folder / "data" / "artifacts", dirs_exist_ok=True)
    return "s3://artifacts"


async def test_a_worker_that_is_killed_again_and_again_makes_the_same_adapter(
    base_folder: Path, store: str, write_data: Data, tmp_path: Path
) -> None:
    asked, moments = spec(write_data(), steps=150), random.Random(5)
    async with trainer(base_folder, store, tmp_path / "s", *SAVING) as one:
        await one.create("whole", asked)
        await one.watch_until("whole", 1000)
        await one.create("killed", asked)
        reached = 0
        for kill in range(KILLS):

            def is_time(reached: int = reached) -> bool:
                status = one.store.newest("killed")
                return status.state.ended or one.store.checkpoint_step("killed") > reached

            if kill:  # The first comes at any moment of the start.
                await until(is_time)
                reached = one.store.checkpoint_step("killed")
            if one.store.newest("killed").state.ended:
                break
            await asyncio.sleep(moments.uniform(0, 0.5 if kill else 6))
            if process := one.worker("killed"):
                os.killpg(pid_of(process), signal.SIGKILL)
                await until(lambda process=process: not is_running(process))
        await one.watch_until("killed", 1000)
        whole, killed = await one.get("whole"), await one.get("killed")
    assert whole.state == killed.state == pb.RUN_STATE_SUCCEEDED, (whole.reason, killed.reason)
    assert killed.attempt >= max(2, KILLS - 1)
    assert int(killed.provenance["resumed_from_step"]) > 0
    assert killed.adapter_ref == whole.adapter_ref
    assert [str(ref) for ref in Registry(store).list()] == [whole.adapter_ref]
    assert [point.step for point in killed.losses] == list(range(1, 151))
    assert [point.loss for point in killed.losses] == [point.loss for point in whole.losses]


GONE = [("s3", signal.SIGKILL), ("folder", signal.SIGSTOP)]


@pytest.mark.parametrize(("store", "how"), GONE if FULL else GONE[:1], indirect=["store"])
async def test_another_trainer_goes_on_with_the_run_of_one_that_is_gone(
    base_folder: Path, store: str, write_data: Data, tmp_path: Path, how: signal.Signals
) -> None:
    """Killed, or cut off for longer than its lease: then it comes back, and commits nothing."""
    asked = spec(write_data(), steps=300)
    # Longer than a worker needs for its first sign of life where tests keep all cores busy.
    lease = ("--lease-seconds", "20")
    async with AsyncExitStack() as stack:
        one, two = [
            await stack.enter_async_context(
                trainer(base_folder, store, tmp_path / name, *SAVING, *lease, "--replica", name)
            )
            for name in ("one", "two")
        ]
        await one.create("a", asked)
        started = await two.watch_until("a", 8)
        first, second = (one, two) if started.replica == "one" else (two, one)
        os.kill(first.pid, how)
        process = await first.kill_worker("a", how)
        run = await second.watch_until("a", 1000)
        assert run.state == pb.RUN_STATE_SUCCEEDED, run.reason
        assert (run.attempt, run.replica) == (2, "two" if started.replica == "one" else "one")
        assert int(run.provenance["resumed_from_step"]) > 0
        if how is signal.SIGSTOP:
            os.kill(first.pid, signal.SIGCONT)
            os.killpg(pid_of(process), signal.SIGCONT)
            await until(lambda: not is_running(process))
        await second.create("whole", asked)
        whole = await second.watch_until("whole", 1000)
    assert whole.adapter_ref == run.adapter_ref
    assert [str(ref) for ref in Registry(store).list()] == [run.adapter_ref]


async def test_a_run_is_cancelled_through_any_trainer(
    base_folder: Path, artifacts: Path, write_data: Data, tmp_path: Path
) -> None:
    asked, store = spec(write_data(), steps=5000), str(artifacts)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(trainer(base_folder, store, tmp_path / "one"))
        await one.create("a", asked)
        await one.watch_until("a", 2)
        process = one.worker("a")
        two = await stack.enter_async_context(trainer(base_folder, store, tmp_path / "two"))
        run = (await two.stub.CancelRun(pb.CancelRunRequest(run_id="a"))).run
        assert run.state == pb.RUN_STATE_CANCELLED
        await until(lambda: not is_running(process))
        assert (await one.get("a")).state == pb.RUN_STATE_CANCELLED
    assert Registry(store).list() == ()


async def test_a_run_goes_on_while_the_store_is_away_and_catches_up(
    base_folder: Path, s3: S3, artifacts: Path, write_data: Data, tmp_path: Path
) -> None:
    asked = spec(write_data(), steps=20 * AWAY_SECONDS)
    shutil.copytree(artifacts, s3.folder / "data" / "artifacts", dirs_exist_ok=True)
    options = ("--lease-seconds", "10", *SAVING)
    async with trainer(base_folder, "s3://artifacts", tmp_path / "s", *options) as one:
        await one.create("a", asked)
        before = await one.watch_until("a", 5)
        s3.stop()
        await asyncio.sleep(AWAY_SECONDS)  # Twice the lease, or more.
        assert "runs not read" in one.log.read_text()
        s3.start()
        after = await one.watch_until("a", before.progress.step + 20)
        assert (after.attempt, after.state) == (1, pb.RUN_STATE_RUNNING)
        run = await one.watch_until("a", 10_000)
    assert run.state == pb.RUN_STATE_SUCCEEDED, run.reason
    assert run.attempt == 1
    assert run.progress.step == 20 * AWAY_SECONDS
