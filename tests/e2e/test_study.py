"""A small study through the real services, with a kill in the middle."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from ..conftest import COMMAND, ROOT, Running, tuneproof

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def kinds(state: Path) -> Counter[str]:
    """How many results of each kind are finished; none before the study made its state."""
    try:
        with sqlite3.connect(f"file:{state / 'study.sqlite'}?mode=ro", uri=True) as database:
            found = database.execute("SELECT kind, COUNT(*) FROM results GROUP BY kind")
            return Counter(dict(found))
    except sqlite3.OperationalError:
        return Counter()


def test_killed_in_the_middle_it_goes_on_and_repeats_nothing(running: Running) -> None:
    before = running.addresses["generator"]["pid"]
    command = ["study", "run", str(running.study), "--up", "--state", str(running.state)]
    first = subprocess.Popen([*COMMAND, *command], cwd=ROOT, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 300
    while kinds(running.state)["answer"] < 5:
        assert first.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    half = kinds(running.state)
    assert half["grade"] < 3 * 24

    again = tuneproof(*command, "--json")
    assert again.returncode == 0, again.stderr
    report = json.loads(again.stdout)
    done = kinds(running.state)
    assert done["training"] == 2
    assert done["answer"] <= 3 * 24 + 10
    with sqlite3.connect(running.state / "study.sqlite") as database:
        rows = database.execute("SELECT kind, inputs FROM results").fetchall()
    assert len(set(rows)) == len(rows)
    assert {cell["arm"] for cell in report["cells"]} == {
        "baseline",
        "short-references",
        "full-references",
    }
    assert Path(report["report"]).read_text().startswith("<!doctype html>")

    after = json.loads((running.state / "endpoints.json").read_text())["generator"]["pid"]
    assert after == before, "the adapters were loaded into the process that ran before"
    os.kill(int(after), 0)


def test_again_it_needs_no_service(running: Running, tmp_path: Path) -> None:
    with (
        sqlite3.connect(running.state / "study.sqlite") as finished,
        sqlite3.connect(tmp_path / "study.sqlite") as copy,
    ):
        finished.backup(copy)
    again = tuneproof(
        *("study", "run", str(running.study), "--up", "--state", str(tmp_path)), timeout=60
    )
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "reports" / "small.html").exists()
    assert not (tmp_path / "services").exists()


def test_the_gate_promotes_what_then_answers(running: Running, tmp_path: Path) -> None:
    """The alias moves only to what passes, and a request to it is served by that digest."""
    state = ["--state", str(running.state)]
    done = tuneproof("study", "run", str(running.study), "--up", *state)
    assert done.returncode == 0, done.stderr
    strict, lenient = tmp_path / "strict.yaml", tmp_path / "lenient.yaml"
    strict.write_text("margin: {accuracy: 0.001, completeness: 0.001}\n")
    lenient.write_text(
        "{margin: {accuracy: 3.9, completeness: 3.9}, severe_loss: null, judge: {kappa: 0.01}}"
    )
    asked = ["--cell", "full-references-48-s1", "--alias", "gated", "--promote", *state, "--json"]
    assert tuneproof("gate", str(running.study), str(strict), *asked).returncode == 1
    aliases = json.loads(tuneproof("adapters", "aliases", *state, "--json").stdout)["aliases"]
    assert "gated" not in {each["name"] for each in aliases}

    passed = tuneproof("gate", str(running.study), str(lenient), *asked)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    adapter = json.loads(passed.stdout)["decisions"][0]["adapter"]
    corpora = json.loads(tuneproof("corpus", "list", *state, "--json").stdout)
    question = ["ask", "what is the Alder 40 transmit power ?", "--corpus", corpora[0]["name"]]
    answer = tuneproof(*question, "--adapter", "gated", *state, "--json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["answer"]["adapter_ref"] == adapter


def test_bioasq_completes(running: Running, data: Path) -> None:
    questions = data / "bioasq" / "12B1_golden.json"
    study = ROOT / "studies" / "bioasq.yaml"
    ended = tuneproof(
        *("study", "run", str(study), "--up", "--data", str(questions)),
        *("--state", str(running.state), "--json"),
        timeout=500,
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    page = Path(report["report"]).read_text()
    assert "no judge" in page.lower()
    assert "gold" in page.lower()
    assert 0 < report["retrieval"]["recall_at_5"] <= report["retrieval"]["recall_ceiling_at_5"]
