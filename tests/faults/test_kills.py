"""Everything is killed, at every stage; what comes out is what an uninterrupted run gives."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..conftest import COMMAND, ROOT, Running, tuneproof

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]

STAGES = {
    "corpus": ("retriever",),
    "training": ("trainer", "generator"),
    "answers": ("generator", "retriever"),
    "verdicts": ("judge", "trainer"),
    "checks": ("judge", "generator"),
}
"""Which services are killed while a stage is under way: the one that works, and one that idles
or is asked next."""


@dataclass
class Study:
    """A run of the small study in a state folder of its own."""

    file: Path
    state: Path

    @property
    def command(self) -> list[str]:
        return [*COMMAND, "study", "run", str(self.file), "--up", "--state", str(self.state)]

    def start(self) -> subprocess.Popen[bytes]:
        with (self.state.parent / "run.log").open("ab") as log:
            return subprocess.Popen(self.command, cwd=ROOT, stdout=log, stderr=log)

    def rows(self) -> dict[str, tuple[str, str]]:
        """Kind and output of every finished piece of work, by key."""
        path = self.state / "study.sqlite"
        if not path.exists():
            return {}
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            try:
                found = database.execute("SELECT key, kind, output FROM results").fetchall()
            except sqlite3.OperationalError:
                return {}
        return {key: (kind, output) for key, kind, output in found}

    def stage(self) -> str:
        """The stage that the run told of last."""
        log = self.state.parent / "run.log"
        for line in reversed(log.read_text("utf-8", "replace").splitlines()):
            if (word := line.split()[0] if line.strip() else "") in STAGES:
                return word
        return ""

    def pid(self, service: str) -> int | None:
        """The process of a service that announced itself and runs."""
        path = self.state / "services" / f"{service}.json"
        try:
            pid = int(json.loads(path.read_text())["pid"])
            os.kill(pid, 0)
        except (OSError, ValueError):
            return None
        return pid


@pytest.fixture
def study(running: Running, tmp_path: Path) -> Iterator[Study]:
    made = Study(running.study, tmp_path / "state")
    yield made
    tuneproof("down", "--state", str(made.state))


@pytest.fixture(scope="session")
def uninterrupted(running: Running) -> dict[str, tuple[str, str]]:
    """What the study gives when nobody disturbs it."""
    ended = tuneproof(
        *("study", "run", str(running.study), "--up", "--state", str(running.state)), timeout=600
    )
    assert ended.returncode == 0, ended.stderr
    return Study(running.study, running.state).rows()


def same(rows: dict[str, tuple[str, str]], others: dict[str, tuple[str, str]]) -> None:
    """The same work with the same outcome, whatever else the other state holds."""

    def outcome(kind: str, output: str) -> object:
        value = json.loads(output)
        known = {"answer": "text", "training": "adapter_ref", "corpus": "digest"}
        return value[known[kind]] if kind in known else None

    kinds = ("corpus", "retrieval", "training", "answer", "verdict")
    mine = {key: outcome(*row) for key, row in rows.items() if row[0] in kinds}
    theirs = {key: outcome(*others[key]) for key in mine if key in others}
    assert mine == theirs
    for kind in kinds:
        assert any(row[0] == kind for row in rows.values())


def wait_for(done, process: subprocess.Popen[bytes], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert process.poll() is None, "the study ended before"
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_orchestrator_is_killed_again_and_again(
    study: Study, uninterrupted: dict[str, tuple[str, str]]
) -> None:
    kills = 0
    while True:
        run = study.start()
        try:
            code = run.wait(20)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.wait()
            kills += 1
            assert kills < 30, "no run comes to the end"
            continue
        assert code == 0, (study.state.parent / "run.log").read_text()[-2000:]
        break
    assert kills > 0
    same(study.rows(), uninterrupted)


def test_services_are_killed_in_every_stage(
    study: Study, uninterrupted: dict[str, tuple[str, str]]
) -> None:
    planned = [(stage, service) for stage, names in STAGES.items() for service in names]
    killed = []
    run = study.start()
    before = -1
    while run.poll() is None:
        stage = study.stage()
        wanted = next((each for each in planned if each[0] == stage and each not in killed), None)
        pid = study.pid(wanted[1]) if wanted else None
        progressed = len(study.rows()) > before or stage in {"corpus", "training"}
        if wanted and pid and progressed:
            os.kill(pid, signal.SIGKILL)
            killed.append(wanted)
            before = len(study.rows())
        time.sleep(0.1)
    assert run.returncode == 0, (study.state.parent / "run.log").read_text()[-3000:]
    assert {stage for stage, _ in killed} == set(STAGES)
    same(study.rows(), uninterrupted)
