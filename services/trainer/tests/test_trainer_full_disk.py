"""Disks that are full in mid-training, for real: small file systems of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tuneproof.adapters import Registry
from tuneproof.trainer.v1 import trainer_pb2 as pb

from .trainer_processes import FULL, spec, trainer, until

Data = Callable[..., dict[str, str]]
pytestmark = [pytest.mark.process, pytest.mark.faults, pytest.mark.timeout(600)]


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("mounting a small file system needs root on Linux")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tuneproof-test", folder]
    done = subprocess.run(mount, check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        pytest.skip(f"may not mount a small file system here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all that is left."""
    ballast = folder / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(512)):
            pass
    assert shutil.disk_usage(folder).free == 0
    return ballast


SAVING = ("--checkpoint-steps", "5", "--checkpoint-minutes", "0", "--lease-seconds", "4")


@pytest.mark.parametrize("steps", [60, 900] if FULL else [60])
async def test_a_run_outlives_a_full_store(
    base_folder: Path, artifacts: Path, write_data: Data, tmp_path: Path, steps: int
) -> None:
    """The disk is full for three leases; the end of a training of 60 steps finds it full."""
    with small_disk(artifacts, 8) as store:
        asked = spec(write_data(), steps=steps)
        async with trainer(base_folder, str(store), tmp_path / "s", *SAVING) as one:
            await one.create("a", asked)
            await one.watch_until("a", 12)
            await until(lambda: one.store.checkpoint_step("a") >= 10)
            ballast = fill(store)
            await until(lambda: "No space left on device (runs/.tried)" in one.log.read_text())
            status, step = one.store.newest("a"), one.store.checkpoint_step("a")
            assert (str(status.state), status.attempt) == ("running", 1)
            checkpoints = one.store.checkpoints("a")
            for name in checkpoints.names():  # What is listed is whole.
                checkpoints.load(name, tmp_path / name)
            assert Registry(str(store)).list() == ()
            ballast.unlink()
            run = await one.watch_until("a", 10_000)
            assert run.state == pb.RUN_STATE_SUCCEEDED, run.reason
            assert [point.step for point in (await one.get("a")).losses] == list(
                range(1, steps + 1)
            )
            assert step < steps
            await one.create("whole", asked)
            whole = await one.watch_until("whole", 10_000)
        assert run.adapter_ref == whole.adapter_ref
        assert run.attempt == (1 if steps == 900 else run.attempt)
        drafts = [path for path in store.rglob(".*") if path.name != ".tried"]
        assert drafts == []


async def test_a_full_scratch_folder_costs_checkpoints_and_then_the_run_with_one_reason(
    base_folder: Path, artifacts: Path, write_data: Data, tmp_path: Path
) -> None:
    """Without space the adapter cannot be saved; with it again, the same run is made anew."""
    asked = spec(write_data(), steps=150)
    with small_disk(tmp_path / "scratch", 4) as scratch:
        options = (*SAVING, "--scratch", str(scratch), "--max-attempts", "2")
        async with trainer(base_folder, str(artifacts), tmp_path / "s", *options) as one:
            await one.create("a", asked)
            await one.watch_until("a", 6)
            ballast = fill(scratch)
            warned = await one.watch_until("a", 60)
            assert "is not saved: " in warned.warning
            run = await one.watch_until("a", 10_000)
            assert run.state == pb.RUN_STATE_FAILED
            assert "No space left on device" in run.reason
            assert Registry(str(artifacts)).list() == ()
            ballast.unlink()
            await one.create("again", asked)
            again = await one.watch_until("again", 10_000)
            assert again.state == pb.RUN_STATE_SUCCEEDED, again.reason
