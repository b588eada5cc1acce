"""Services that one `tuneproof up` keeps, and another program that wants to change them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tuneproof.local import LocalOptions, Supervisor, processes
from tuneproof.servicekit.errors import WrongState
from tuneproof.servicekit.locks import holder_of

pytestmark = [pytest.mark.process, pytest.mark.timeout(60)]

KEEP = """
import sys, time
from pathlib import Path
from tuneproof.local import Supervisor
with Supervisor(Path(sys.argv[1])).keeping():
    print("kept", flush=True)
    time.sleep(60)
"""


def quiet(_name: str, _what: str) -> None:
    """Nobody has to be told."""


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that keeps the services."""
    process = subprocess.Popen(
        [sys.executable, "-c", KEEP, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "kept\n"
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[psutil.Process]:
    """A process that stands for a judge with other settings."""
    mark = str(tmp_path.resolve() / "services" / "judge.json")
    process = processes.start(
        [sys.executable, "-c", "import time; time.sleep(60)", mark], tmp_path / "judge.log", {}
    )
    yield process
    processes.stop(process, grace=5)


async def test_services_that_another_keeps_are_not_replaced(
    tmp_path: Path, keeper: subprocess.Popen[str], judge: psutil.Process
) -> None:
    supervisor = Supervisor(tmp_path)
    told = (
        rf"judge of .* runs with other settings, and `tuneproof up` \(process {keeper.pid}, since"
    )
    with pytest.raises(WrongState, match=told):
        await supervisor.ensure_up(LocalOptions(tmp_path, "model"), progress=quiet)
    assert processes.is_alive(judge)


def test_two_cannot_keep_the_same(tmp_path: Path, keeper: subprocess.Popen[str]) -> None:
    told = rf"kept by `tuneproof up` \(process {keeper.pid}, .*take another folder with --state"
    with pytest.raises(WrongState, match=told), Supervisor(tmp_path).keeping():
        pass


async def test_down_ends_the_keeper_first_so_that_nothing_comes_back(
    tmp_path: Path, keeper: subprocess.Popen[str], judge: psutil.Process
) -> None:
    told: list[str] = []
    await Supervisor(tmp_path).take_down(progress=lambda name, what: told.append(f"{name} {what}"))
    assert not psutil.pid_exists(keeper.pid)
    assert not processes.is_alive(judge)
    assert holder_of(tmp_path / "services" / "kept.lock") is None
    assert told[0].startswith(f"tuneproof up stopping (process {keeper.pid}")
