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

from ..conftest import COMMAND, ROOT, small_study, tuneproof

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]

WORKER = {
    "corpus": "retriever",
    "retrieval": "retriever",
    "training": "trainer",
    "answers": "generator",
    "grades": "judge",
    "checks": "judge",
}
"""The service that works in each stage."""
SERVICES = ("retriever", "trainer", "generator", "judge")


Rows = dict[str, tuple[str, str, str]]
"""Kind, output and inputs of every finished piece of work, by key."""


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

    def rows(self) -> Rows:
        """What is stored so far."""
        path = self.state / "study.sqlite"
        if not path.exists():
            return {}
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            try:
                found = database.execute(
                    "SELECT key, kind, output, inputs FROM results ORDER BY rowid"
                ).fetchall()
            except sqlite3.OperationalError:
                return {}
        return {key: tuple(row) for key, *row in found}

    @property
    def began(self) -> bool:
        """Whether the services were ready once; one that dies while it starts ends the study."""
        return (self.state / "endpoints.json").exists()

    def pid(self, service: str) -> int | None:
        """The process of a service that announced itself and runs."""
        path = self.state / "services" / f"{service}.json"
        try:
            pid = int(json.loads(path.read_text())["pid"])
            os.kill(pid, 0)
        except (OSError, ValueError):
            return None
        return pid


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = small_study(tmp_path_factory.mktemp("faults"))
    # Times are no work that a kill could repeat or lose unseen, and are too few to kill all in.
    path.write_text(path.read_text() + "costs: {timed: 0}\n")
    return path


@pytest.fixture
def study(file: Path, tmp_path: Path) -> Iterator[Study]:
    made = Study(file, tmp_path / "state")
    yield made
    tuneproof("down", "--state", str(made.state))


@pytest.fixture(scope="session")
def uninterrupted(file: Path) -> Rows:
    """What the study gives when nobody disturbs it, in the order in which it was stored."""
    made = Study(file, file.parent / "state")
    assert made.start().wait(600) == 0
    return made.rows()


def stages(rows: Rows) -> dict[str, str]:
    """The stage in which each piece of work is done, by key, in the order of the doing.

    Args:
        rows: of a finished run, in the order in which they were stored.
    """
    named = {"answer": "answers", "grade": "grades"}
    found = {key: named.get(kind, kind) for key, (kind, _, _) in rows.items() if kind != "pool"}
    for key, (kind, _, inputs) in rows.items():
        # What the checks have judged came by no retrieval.
        if kind == "grade" and not json.loads(inputs).get("passages"):
            found[key] = "checks"
    return found


def assert_same(rows: Rows, others: Rows) -> None:
    """The same work, each piece once, with the same outcome; only grades are sampled."""

    def outcome(kind: str, output: str, _inputs: str) -> object:
        value = json.loads(output)
        known = {"answer": "text", "training": "adapter_ref", "corpus": "digest"}
        return value[known[kind]] if kind in known else kind

    assert {key: outcome(*row) for key, row in rows.items()} == {
        key: outcome(*row) for key, row in others.items()
    }


def test_the_orchestrator_is_killed_again_and_again(study: Study, uninterrupted: Rows) -> None:
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
    assert_same(study.rows(), uninterrupted)


def test_every_service_is_killed_in_every_stage(study: Study, uninterrupted: Rows) -> None:
    planned = stages(uninterrupted)
    assert set(planned.values()) == set(WORKER)
    left = {stage: set(SERVICES) for stage in WORKER}
    progress_at_start = dict.fromkeys(SERVICES, 0)
    seen: dict[str, int] = {}
    run = study.start()
    while run.poll() is None:
        rows = study.rows()
        stage = next((planned[key] for key in planned if key not in rows), "")
        done = len(rows)
        # The one that works goes last: its loss is what brings the others back.
        for service in sorted(left.get(stage, ()), key=lambda name: name == WORKER[stage]):
            pid = study.pid(service)
            if pid is None or not study.began:
                continue
            if seen.get(service) != pid:
                seen[service], progress_at_start[service] = pid, done
            # A corpus and a training are one piece of work each, lost when they are interrupted.
            if done > progress_at_start[service] or stage in {"corpus", "training"}:
                os.kill(pid, signal.SIGKILL)
                left[stage].remove(service)
        time.sleep(0.02)
    assert run.returncode == 0, (study.state.parent / "run.log").read_text()[-3000:]
    assert not any(left.values()), "a stage was over before all were killed in it"
    assert_same(study.rows(), uninterrupted)
