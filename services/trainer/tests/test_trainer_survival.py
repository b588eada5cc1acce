"""Kills: the worker's, the service's, both; and cancelling one that does not listen."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tuneproof.adapters import Registry
from tuneproof.servicekit.processes import is_running
from tuneproof.trainer.v1 import trainer_pb2 as pb
from tuneproof_trainer.record import RunState

from .trainer_processes import spec, trainer, until

Data = Callable[..., dict[str, str]]
pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(400),
]  # Imports of torch, on a machine that is busy.


@pytest.mark.faults
async def test_a_run_survives_the_death_of_its_worker_and_of_its_service(
    base_folder: Path, artifacts: Path, write_data: Data, tmp_path: Path
) -> None:
    asked, store = spec(write_data()), str(artifacts)
    options = ("--checkpoint-steps", "4")
    async with trainer(base_folder, store, tmp_path / "s", *options) as one:
        await one.create("a", asked)
        await until(lambda: one.worker("a"))
        os.kill(one.pid, signal.SIGKILL)
        first = await one.kill_worker("a")
        await until(lambda: not is_running(first))
    async with trainer(base_folder, store, tmp_path / "s", *options) as two:
        await two.watch_until("a", 6)
        second = await two.kill_worker("a")
        assert second != first
        await until(lambda: two.worker("a") not in ("", second))
        third = two.worker("a")
        os.kill(two.pid, signal.SIGKILL)
        assert is_running(third)
    async with trainer(base_folder, store, tmp_path / "s", *options) as three:
        run = await three.watch_until("a", 1000)
        assert run.attempt == 3  # Its worker was found, not started again.
        await three.create("b", asked)
        undisturbed = await three.watch_until("b", 1000)
        await three.create("c", asked)
        await three.watch_until("c", 2)
        last = three.worker("c")
    assert run.state == pb.RUN_STATE_SUCCEEDED, run.reason
    assert int(run.provenance["resumed_from_step"]) >= 4
    assert undisturbed.state == pb.RUN_STATE_SUCCEEDED, undisturbed.reason
    assert undisturbed.provenance["resumed_from_step"] == "0"
    assert run.adapter_ref == undisturbed.adapter_ref
    assert [str(ref) for ref in Registry(store).list()] == [run.adapter_ref]
    # The last service was told to end: it left no worker, which had saved a checkpoint.
    assert is_running(last) is False
    assert three.store.newest("c").state is RunState.QUEUED
    assert three.store.checkpoint_step("c") >= 2
    assert three.store.checkpoint_step("a") == 0  # Nobody needs it any more.
    assert "Traceback" not in three.log.read_text()


async def test_a_worker_that_does_not_listen_is_killed(
    base_folder: Path, artifacts: Path, write_data: Data, tmp_path: Path
) -> None:
    asked = spec(write_data(), steps=5000)
    async with trainer(base_folder, str(artifacts), tmp_path / "s") as one:
        for run_id in ("frozen", "well"):
            await one.create(run_id, asked)
            await until(lambda run_id=run_id: one.worker(run_id))
            process = one.worker(run_id)
            if run_id == "frozen":
                await one.kill_worker(run_id, signal.SIGSTOP)
            run = (await one.stub.CancelRun(pb.CancelRunRequest(run_id=run_id))).run
            assert run.state == pb.RUN_STATE_CANCELLED
            assert is_running(process) is False
    assert Registry(str(artifacts)).list() == ()
