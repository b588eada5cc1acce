"""`tuneproof study` as a program: output, exit codes, files."""

from __future__ import annotations

import json
import re
import time
from functools import partial

import pytest
from fakes import served
from small_study import STUDY, SmallStudy, finished, invoke

from tuneproof.cli.progress import LineProgress
from tuneproof.study.state.store import open_state

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


@pytest.fixture
def small(tmp_path):
    return SmallStudy(tmp_path)


@pytest.fixture
def run(capsys, monkeypatch):
    return partial(invoke, capsys, monkeypatch)


@pytest.mark.process
async def test_a_run_ends_with_verdicts_and_a_report(small, run):
    world = small.world()
    async with served(world) as target:
        small.announce(target)
        code, out, err = await finished(
            "study", "run", str(small.file), "--state", str(small.state)
        )
    assert code == 0, err
    for arm in ("short", "closed"):
        for measure in ("accuracy", "completeness"):
            pattern = rf"{arm} +.{{0,3}}{measure} .*\d\.\d\d.*(better|worse|equivalent|undecided)"
            assert re.search(pattern, out), out
    assert "no evidence about real models" in out
    assert "36 answers of 36; 0 with an error" in out
    assert "72 judged scores; 0 unscored" in out
    report = small.state / "reports" / "small.html"
    assert f"report: {report}" in out
    assert report.read_text().lower().startswith("<!doctype html>")
    for stage in ("corpus", "retrieval", "training", "answers", "grades", "judge check"):
        assert f"{stage} " in err
    assert "answers    36/36" in err
    assert "reader check: answers 5/5" in err

    code, again, err = run(
        "study", "report", str(small.file), "--state", str(small.state), "--json"
    )
    assert code == 0, err
    value = json.loads(again)
    assert value["report"] == str(report)
    assert world.calls["GetPool"] == 1


@pytest.mark.process
async def test_a_failed_item_ends_with_3_and_json_on_standard_output(small, run):
    world = small.world(unscored=set())
    async with served(world) as target:
        small.announce(target)
        arguments = ["study", "run", str(small.file), "--state", str(small.state), "--json"]
        world.failing_runs = {"short-8-s1"}
        code, out, err = await finished(*arguments)
        assert code == 3, err
        json.loads(out)
        code, out, _ = run(
            "study", "status", str(small.file), "--state", str(small.state), "--json"
        )
        assert code == 0
        status = json.loads(out)
        stages = {stage["stage"]: stage for stage in status["stages"]}
        counted = {name: stages["training"][name] for name in ("done", "total", "failed")}
        assert counted == {"done": 1, "total": 2, "failed": 1}
        assert stages["answers"]["done"] == 24
        assert stages["answers"]["total"] == 36
        assert not status["complete"]
        assert status["services"] == {}


async def test_a_status_shows_rates_and_is_watched_until_all_is_done(small, run, monkeypatch):
    async with served(small.world()) as target:
        await small.run(target)
    with open_state(small.state, write=True) as state, state._database as database:
        database.execute("UPDATE counts SET done = 12, fresh = 6, seconds = 30 WHERE total = 36")

    def a_minute_later(_):
        with open_state(small.state, write=True) as state, state._database as database:
            database.execute("UPDATE counts SET done = total")

    monkeypatch.setattr(time, "sleep", a_minute_later)
    arguments = ["study", "status", str(small.file), "--state", str(small.state)]
    code, out, err = run(*arguments)
    assert code == 0, err
    assert re.search(r"answers +12 +36 +0 +12 +about 2.0 min", out), out
    assert "run: none under way" in out
    code, out, err = run(*arguments, "--watch")
    assert code == 0, err
    assert re.search(r"answers +36 +36 +0", out), out
    code, _, err = run(*arguments, "--watch", "--json")
    assert code == 2
    assert "leave it out" in err


async def test_a_status_of_a_file_that_was_changed_counts_anew(small, run):
    async with served(small.world()) as target:
        await small.run(target)
    small.edit("test_items: 12", "test_items: 14")
    arguments = ["study", "status", str(small.file), "--state", str(small.state), "--json"]
    code, out, err = run(*arguments)
    assert code == 0, err
    answers = {stage["stage"]: stage for stage in json.loads(out)["stages"]}["answers"]
    assert (answers["done"], answers["total"]) == (36, 42)


@pytest.mark.process
async def test_external_services_are_named_by_flags(small):
    world = small.world(model="llama")
    flags = ["--judge-url", "http://judge/v1", "--judge-model", "tiny"]
    async with served(world) as target:
        for name in ("retriever", "generator", "trainer", "judge"):
            flags += [f"--{name}", target]
        code, out, err = await finished(
            "study", "run", str(small.file), "--state", str(small.state), "--json", *flags
        )
    assert code == 0, err
    text = (small.state / "reports" / "small.html").read_text()
    assert "llama" in text
    assert json.loads(out)


@pytest.mark.parametrize(
    "case",
    [
        (STUDY.replace("k: 3", "k: 0"), [], 2, "small.yaml:6: retrieval.k"),
        (STUDY, ["--model", "./nowhere"], 2, "the model folder ./nowhere does not exist"),
        (STUDY, ["--judge-url", "http://x/v1"], 2, "--judge-url and --judge-model belong"),
        (STUDY, ["--data", "x.json"], 2, "--data does not fit"),
        (STUDY, ["--up", "--judge", "x:1"], 2, "--up starts the services on this machine"),
        (STUDY, [], 4, "no address of the retriever is known"),
        (STUDY, ["--retriever", "nonsense"], 2, "nonsense"),
    ],
)
def test_what_cannot_be_ends_with_one_message(small, run, case):
    text, flags, code, told = case
    small.file.write_text(text)
    ended, out, err = run("study", "run", str(small.file), "--state", str(small.state), *flags)
    assert ended == code, err
    assert told in err
    assert err.startswith("tuneproof: ")
    assert "Traceback" not in err
    assert out == ""


def test_a_report_before_any_run_says_what_to_do(small, run):
    code, _, err = run("study", "report", str(small.file), "--state", str(small.state))
    assert code == 1
    assert "run `tuneproof study run` first" in err


def test_a_plan_counts(small, run):
    code, out, _ = run("study", "plan", str(small.file), "--json")
    assert code == 0
    value = json.loads(out)
    assert value["counts"]["answers"] == 36
    assert value["counts"]["judgements"] == 36 * 2 * 2
    assert value["cells"] == ["baseline", "short-8-s1", "closed-8-s1"]


def test_lines_come_now_and_then():
    now = [0.0]
    lines: list[str] = []
    progress = LineProgress(lines.append, lambda: now[0])
    with progress.stage("answers", 100, 20) as stage:
        for _ in range(40):
            now[0] += 0.2
            stage.advance()
        stage.note("waiting")
    assert lines == [
        "answers    35/100  about 13 s left",
        "answers    50/100  about 10 s left",
        "answers    60/100 in 8.0 s",
    ]
