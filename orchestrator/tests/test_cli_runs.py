"""`tuneproof runs`, at a trainer that trains nothing in a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from fake_trainer import STEPS

from tuneproof.cli.runs.completing import complete_run_ids
from tuneproof.sdk import RunInfo, TrainerClient

pytestmark = pytest.mark.timeout(60)


def test_a_run_is_made_of_a_file_and_flags_and_is_waited_for(runs, told):
    flags = ("--rank", "8", "--learning-rate", "1e-4", "--target-modules", "q_proj, v_proj")
    code, out, err = runs("create", "train.jsonl", "--adapter", "short", *flags, "--seed", "7")
    assert code == 0, err
    assert "short@sha256:" in out
    assert f"step {STEPS}/{STEPS}" in err
    (made,) = told("list")["runs"]
    digest = sha256(Path("train.jsonl").read_bytes()).hexdigest()
    spec = made["spec"]
    assert spec["data_path"] == f"datasets/{digest}.jsonl"
    assert spec["data_digest"] == f"sha256:{digest}"
    stored = Path(".tuneproof/artifacts") / spec["data_path"]
    assert stored.read_bytes() == Path("train.jsonl").read_bytes()
    asked = spec["hyperparameters"]
    assert (asked["rank"], asked["learning_rate"]) == (8, 1e-4)
    assert asked["target_modules"] == ["q_proj", "v_proj"]
    assert (spec["seed"], made["state"]) == (7, "succeeded")


def test_the_same_command_comes_back_to_the_same_run(runs, told):
    ask = partial(told, "create", "train.jsonl", "--adapter", "short")
    first = ask("--rank", "4")
    assert ask("--rank", "4")["id"] == first["id"]
    assert ask("--rank", "5")["id"] != first["id"]
    assert len(told("list")["runs"]) == 2
    named = told("create", "train.jsonl", "--adapter", "short", "--rank", "4", "--id", "mine")
    assert named["id"] == "mine"


def test_a_failed_run_is_told_and_starts_anew(runs, told):
    code, out, err = runs("create", "train.jsonl", "--adapter", "bad")
    assert code == 1
    assert "failed: the loss became nan at step 2" in out
    code, out, err = runs("create", "train.jsonl", "--adapter", "bad")
    assert code == 1
    assert "failed before (the loss became nan at step 2)" in err
    ids = {each["id"] for each in told("list", "--only", "failed")["runs"]}
    assert len(ids) == 2
    assert min(ids, key=len) + "-2" == max(ids, key=len)


def test_a_file_says_it_all_and_flags_go_first(runs, told):
    Path("deep").mkdir()
    Path("train.jsonl").rename("deep/train.jsonl")
    Path("deep/run.yaml").write_text(
        "data: train.jsonl\nadapter: short\nseed: 3\nhyperparameters: {rank: 64, alpha: 16}\n"
    )
    made = told("create", "--spec", "deep/run.yaml", "--rank", "8", "--seed", "4")
    asked = made["spec"]["hyperparameters"]
    assert (asked["rank"], asked["alpha"], made["spec"]["seed"]) == (8, 16, 4)


def test_files_that_validate_or_are_held_out_go_into_the_store_too(told):
    Path("other.jsonl").write_text(2 * Path("train.jsonl").read_text())
    Path("test.jsonl").write_text('{"id": "q1"}\n')
    files = ("--validation", "other.jsonl", "--held-out", "test.jsonl", "--allow-leakage")
    spec = told("create", "train.jsonl", "--adapter", "short", *files)["spec"]
    assert spec["allow_leakage"]
    for name, file in (("validation", "other.jsonl"), ("held_out", "test.jsonl")):
        stored = Path(".tuneproof/artifacts") / spec[f"{name}_path"]
        assert stored.read_bytes() == Path(file).read_bytes()
        assert spec[f"{name}_digest"].removeprefix("sha256:") == stored.stem


def test_data_in_the_artifact_store_are_named_by_their_digest(told):
    digest = "sha256:" + "ab" * 32
    made = told("create", f"datasets/x.jsonl@{digest}", "--adapter", "short", "--detach")
    assert made["spec"]["data_path"] == "datasets/x.jsonl"
    assert made["spec"]["data_digest"] == digest
    assert not Path(".tuneproof/artifacts").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train.jsonl",), "say --adapter, or name a file that says so with --spec"),
        ((), "say DATA and --adapter"),
        (("gone.jsonl", "--adapter", "a"), "gone.jsonl: cannot be read: No such file"),
        (("train.jsonl", "--adapter", "a", "--rank", "900"), "--rank is 900: "),
        (
            ("train.jsonl", "--adapter", "a", "--epochs", "0"),
            "epochs and max_steps are both 0: nothing would be trained",
        ),
        (("--spec", "wrong.yaml"), "wrong.yaml:2: rnak: is not a key of a run file"),
    ],
)
def test_mistakes_are_told_before_anything_starts(runs, told, arguments, said):
    Path("wrong.yaml").write_text("adapter: a\nrnak: 8\n")
    code, out, err = runs("create", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert told("list")["runs"] == []


def test_a_run_goes_on_alone_and_is_watched_and_cancelled(runs, told):
    started = told("create", "train.jsonl", "--adapter", "slow", "--detach")
    name = started["id"]
    assert started["state"] in ("queued", "running")
    assert told("list", "--only", "running")["runs"][0]["id"] == name
    assert told("list", "--only", "failed")["runs"] == []
    assert told("cancel", name)["state"] == "cancelled"
    code, out, _ = runs("watch", name, "--json")
    assert code == 1
    assert json.loads(out)["state"] == "cancelled"
    code, _, err = runs("cancel", told("create", "train.jsonl", "--adapter", "short")["id"])
    assert code == 1
    assert "too late to cancel" in err


def test_a_watch_gives_each_loss_once(runs, told):
    name = told("create", "train.jsonl", "--adapter", "short", "--detach")["id"]
    code, out, _ = runs("watch", name, "--json")
    assert code == 0
    changes = [json.loads(line) for line in out.splitlines()]
    steps = [step for change in changes for step, _ in change["losses"]]
    assert steps == list(range(1, STEPS + 1))
    assert changes[-1]["state"] == "succeeded"
    code, out, _ = runs("watch", name)
    assert code == 0
    assert "short@sha256:" in out


def test_many_watchers_see_the_same_run(trainer, told):
    name = told("create", "train.jsonl", "--adapter", "slow", "--detach")["id"]

    async def watch() -> list[RunInfo]:
        async with TrainerClient(trainer) as client:
            watches = [asyncio.create_task(client.wait(name)) for _ in range(20)]
            await asyncio.sleep(0.1)
            await client.cancel(name)
            return await asyncio.gather(*watches)

    ended = asyncio.run(watch())
    assert {run.state for run in ended} == {"cancelled"}
    assert len({run.losses for run in ended}) == 1


def test_ctrl_c_leaves_the_run_going(runs, told, trainer):
    program = [sys.executable, "-m", "tuneproof.cli.main", "runs", "create", "train.jsonl"]
    with subprocess.Popen(
        [*program, "--adapter", "slow", "--trainer", trainer],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        line = process.stderr.readline()
        assert "running" in line or "queued" in line
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    (still,) = told("list")["runs"]
    assert still["state"] == "running"
    assert f"run {still['id']} goes on; `tuneproof runs watch {still['id']}`" in err


def test_a_run_is_shown_with_its_curve(runs, told):
    name = told("create", "train.jsonl", "--adapter", "short", "--rank", "8")["id"]
    code, out, _ = runs("show", name)
    assert code == 0
    for words in (name, "succeeded", "rank", "short@sha256:", "2.000 ┤", f"step {STEPS}"):
        assert words in out
    shown = told("show", name)
    assert shown["figures"]["loss"] == pytest.approx(2 / STEPS)
    code, _, err = runs("show", "nowhere")
    assert code == 1
    assert "no run 'nowhere'" in err


def test_runs_are_compared(runs, told):
    flags = ("--adapter", "short", "--validation-share", "0.2")
    one = told("create", "train.jsonl", *flags, "--rank", "8")["id"]
    two = told("create", "train.jsonl", *flags, "--rank", "16")["id"]
    code, out, err = runs("compare", one, two, "--svg", "losses.svg")
    assert code == 0, err
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert rows["rank"] == ["8", "16"]
    assert "alpha" not in rows
    assert "validation loss" in out
    assert "1,234" in out
    drawing = ElementTree.parse("losses.svg").getroot()
    lines = drawing.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 2
    found = told("compare", one, two)
    assert found["differing"] == {"rank": [8, 16]}
    code, _, err = runs("compare", one, one)
    assert code == 2
    assert "two runs or more" in err


def test_runs_come_in_pages_the_newest_first(told):
    for number in range(5):
        told("create", "train.jsonl", "--adapter", "short", "--seed", str(number), "--detach")
    assert [each["spec"]["seed"] for each in told("list")["runs"]] == [4, 3, 2, 1, 0]
    assert len(told("list", "--first", "2")["runs"]) == 2


def test_the_shell_completes_ids(runs, told, trainer):
    name = told("create", "train.jsonl", "--adapter", "short")["id"]
    given = SimpleNamespace(params={"trainer": trainer, "state": None, "token": ""})
    given.find_root = lambda: SimpleNamespace(params={})
    assert complete_run_ids(given, "sho") == [(name, "succeeded")]
    assert complete_run_ids(given, "x") == []
    given.params["trainer"] = "127.0.0.1:1"
    assert complete_run_ids(given, "") == []


def test_without_a_trainer_it_says_so(bare_runs):
    code, _, err = bare_runs("list")
    assert code == 4
    assert "no address of the trainer is known" in err
