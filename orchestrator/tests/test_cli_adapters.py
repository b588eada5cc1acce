"""`tuneproof adapters`, at a pool without an engine in a process of its own."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fake_pool import CAPACITY
from judged_pairs import REF, around, judged
from small_study import invoke

from tuneproof.cli.adapters.watch import watch_on
from tuneproof.results.snapshot import results_json
from tuneproof.sdk import AdapterInfo
from tuneproof.servicekit.errors import Unavailable

pytestmark = pytest.mark.timeout(60)


POOLS = 12


@pytest.fixture(scope="module")
def pools() -> Iterator[Iterator[str]]:
    program = [sys.executable, str(Path(__file__).with_name("fake_pool.py")), str(POOLS)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        yield iter(process.stdout.readline().split())
        process.kill()


@pytest.fixture
def pool(pools) -> str:
    """The address of a pool that no other test uses."""
    return next(pools)


@pytest.fixture
def bare(capsys, monkeypatch, tmp_path):
    """Runs `tuneproof adapters` where no generator is known."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNEPROOF_GENERATOR_TARGET", raising=False)
    return partial(invoke, capsys, monkeypatch, "adapters")


@pytest.fixture
def run(bare, pool, monkeypatch):
    monkeypatch.setenv("TUNEPROOF_GENERATOR_TARGET", pool)
    return bare


@pytest.fixture
def done(run):
    """Runs a command that must succeed; gives its standard output."""

    def call(*arguments: str) -> str:
        code, out, err = run(*arguments)
        assert code == 0, err
        return out

    return call


def ref(name: str) -> str:
    return f"{name}@sha256:" + name[0].encode().hex() * 32


A, B, C = ref("a"), ref("b"), ref("c")


def test_an_adapter_comes_is_looked_at_and_goes(run, done):
    code, out, err = run("declare", A, "--wait", "--required")
    assert code == 0
    assert out == f"{A}: ready\n"
    for words in ("fetching", "verifying", "loading", "fetch 0.01 s, verify 0.01 s, load 0.01 s"):
        assert words in err

    done("alias", "live", A, "--reason", "first")
    (listed,) = json.loads(done("list", "--json"))["adapters"]
    assert (listed["ref"], listed["ready"], listed["required"]) == (A, True, True)
    table = done("list")
    assert A in table
    assert "ready (required)" in table
    assert f"toy: 1 of {CAPACITY} adapters; replicas: r1" in table

    shown = done("show", "live")
    for words in (A, "rank", "8", "verifying", "load 0.01 s", "on r1", "live"):
        assert words in shown
    told = json.loads(done("show", A, "--json"))
    assert [change["state"] for change in told["transitions"]][-1] == "ready"
    assert told["replicas"]["r1"]["state"] == "ready"

    code, _, err = run("remove", A)
    assert code == 1
    assert "alias live points to" in err
    done("declare", B, "--wait")
    done("alias", "live", B, "--expect", A)
    assert done("remove", A) == f"{A}: removed\n"
    assert A not in done("list")


def test_what_cannot_be_served_ends_with_its_reason(run):
    code, out, err = run("declare", ref("bad"), "--wait")
    assert (code, out) == (1, "")
    assert "failed" in err
    assert "cannot be served: tensor q holds NaN" in err
    code, out, _ = run("declare", C, "--wait", "--json")
    assert code == 0
    assert json.loads(out)["state"] == "ready"


def test_where_there_is_no_place_the_flag_decides(run, done):
    for number in range(CAPACITY):
        done("declare", ref(f"n{number}"), "--wait")
    code, _, err = run("declare", A)
    assert code == 1
    assert f"all {CAPACITY} adapters are held: {ref('n0')}" in err
    done("declare", A, "--wait", "--on-full", "evict-idle")
    listed = [each["ref"] for each in json.loads(done("list", "--json"))["adapters"]]
    assert len(listed) == CAPACITY
    assert A in listed
    assert ref("n0") not in listed


def test_an_alias_moves_from_where_it_is_expected_and_back(run, done):
    for each in (A, B, C):
        done("declare", each, "--wait")
    assert done("alias", "live", A, "--reason", "gate 1") == f"live points to {A}, version 1\n"
    code, _, err = run("alias", "live", B)
    assert code == 1
    assert f"--expect {A} moves it from there" in err
    out = done("alias", "live", A, "--expect", A, "--canary", f"{B}:5")
    assert out == f"live points to {A}, 5 % to {B}, version 2\n"
    done("alias", "live", B, "--expect", A, "--reason", "gate 2")
    assert f"{B}" in done("aliases")
    versions = json.loads(done("history", "live", "--json"))["versions"]
    assert [each["version"] for each in versions] == [3, 2, 1]
    assert (versions[1]["canary_ref"], versions[1]["canary_percent"]) == (B, 5)
    history = done("history", "live")
    for words in ("gate 1", "gate 2", A, f"5 % to {B}", "ci"):
        assert words in history

    out = done("rollback", "live", "--reason", "too short")
    assert f"live points to {A}, 5 % to {B} again, as in version 2" in out
    assert f"it pointed to {B} since version 3 (gate 2); now it is version 4" in out
    undone = json.loads(done("rollback", "live", "--json"))
    assert (undone["now"]["ref"], undone["now"]["canary_ref"]) == (B, "")
    assert undone["now"]["reason"] == "rollback to version 3"
    chosen = json.loads(done("rollback", "live", "--to", "1", "--json"))
    assert (chosen["now"]["ref"], chosen["now"]["canary_ref"], chosen["as_in"]) == (A, "", 1)
    code, _, err = run("rollback", "live", "--to", "99")
    assert code == 2
    assert "no earlier version 99 to go back to; the last ones are: 5, 4, 3, 2, 1" in err


def test_a_gate_moves_the_alias_only_to_what_passes(run, done, capsys, monkeypatch, tmp_path):
    gate = partial(invoke, capsys, monkeypatch, "gate", "ours.json", "gate.yaml")
    (tmp_path / "gate.yaml").write_text("margin: {accuracy: 0.25}\n")

    def promote(difference: float) -> tuple[int, str, str]:
        content = results_json(judged(around(difference)), {})
        (tmp_path / "ours.json").write_text(json.dumps(content))
        return gate("--alias", "live", "--promote", "--out", "report.json")

    done("declare", A, "--wait")
    done("declare", REF, "--wait")
    done("alias", "live", A)
    assert promote(-0.5)[0] == 1
    assert [one["ref"] for one in json.loads(done("aliases", "--json"))["aliases"]] == [A]

    code, _, err = promote(0.0)
    assert code == 0, err
    digest = hashlib.sha256((tmp_path / "report.json").read_bytes()).hexdigest()
    (alias,) = json.loads(done("aliases", "--json"))["aliases"]
    assert alias["ref"] == REF
    assert alias["reason"] == f"gate of made passed, report sha256:{digest}"


def test_a_rollback_without_a_way_back_is_refused(run, done):
    done("declare", A, "--wait")
    done("alias", "live", A)
    done("alias", "live", A, "--expect", A, "--reason", "again")
    code, _, err = run("rollback", "live")
    assert code == 1
    assert f"has never pointed elsewhere than to {A}" in err
    code, _, err = run("rollback", "nobody")
    assert code == 1
    assert "no alias nobody" in err
    done("declare", B, "--wait")
    done("alias", "live", B, "--expect", A)
    done("remove", A)
    code, _, err = run("rollback", "live")
    assert code == 1
    assert f"{A} is not READY" in err
    assert f"{A} again" in done("rollback", "live", "--force")


def test_a_retired_alias_lets_go_and_comes_back(run, done):
    done("declare", A, "--wait")
    done("alias", "trial", A)
    assert done("retire", "trial") == "trial points to nothing, version 2\n"
    code, _, err = run("retire", "trial")
    assert code == 1
    assert "points nowhere already" in err
    assert f"trial points to {A} again, as in version 1" in done("rollback", "trial")
    done("retire", "trial", "--expect", A)
    done("declare", B, "--wait")
    done("alias", "trial", B)
    assert f"trial points to {A} again, as in version 3" in done("rollback", "trial")
    code, _, err = run("rollback", "trial", "--to", "2")
    assert code == 2
    assert "no earlier version 2 to go back to" in err
    done("retire", "trial")
    assert done("remove", A) == f"{A}: removed\n"


def test_a_canary_changed_meanwhile_is_not_overwritten(run, done):
    for each in (A, B):
        done("declare", each, "--wait")
    done("alias", "busy", A)
    done("alias", "busy", A, "--expect", A, "--expect-version", "1", "--canary", f"{B}:5")
    code, _, err = run("alias", "busy", A, "--expect", A, "--expect-version", "1")
    assert code == 1
    assert "at version 2, not" in err
    assert "--expect" not in err
    for version, command in enumerate(("rollback", "retire"), 3):
        code, _, err = run(command, "busy")
        assert code == 1
        assert f"at version {version}, not" in err


def test_a_rollback_whose_answer_is_lost_is_not_repeated(run, done):
    for each in (A, B):
        done("declare", each, "--wait")
    done("alias", "lossy", A)
    done("alias", "lossy", B, "--expect", A)
    assert "now it is version 3" in done("rollback", "lossy")
    assert len(json.loads(done("history", "lossy", "--json"))["versions"]) == 3


@pytest.mark.parametrize("canary", ["5", f"{A}", f"{A}:0", f"{A}:100", f"{A}:five", "live:5"])
def test_a_canary_is_a_reference_and_a_percent(bare, canary):
    code, _, err = bare("alias", "live", B, "--canary", canary)
    assert code == 2
    assert "not REF:PERCENT with 1 to 99 percent" in err


def test_without_a_generator_it_says_how_to_get_one(bare):
    code, _, err = bare("list")
    assert code == 4
    assert "`tuneproof up`" in err
    assert "--generator" in err


def test_every_command_has_an_example(bare):
    names = ("list", "show", "declare", "remove", "watch", "verify")
    for name in (*names, "alias", "aliases", "history", "rollback", "retire"):
        code, out, _ = bare(name, "--help")
        assert code == 0
        assert f"tuneproof adapters {name}" in out
        assert "--json" in out


@pytest.mark.process
def test_a_watch_tells_changes_until_ctrl_c(pool, done):
    done("declare", A, "--wait")
    program = [sys.executable, "-m", "tuneproof.cli.main", "adapters", "watch", "--json"]
    with subprocess.Popen(
        [*program, "--generator", pool], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watch:
        assert json.loads(watch.stdout.readline())["ref"] == A
        for command, last in (("declare", "ready"), ("remove", "removed")):
            done(command, B)
            state = ""
            while state != last:
                told = json.loads(watch.stdout.readline())
                assert told["ref"] == B
                state = told["state"]
        watch.send_signal(signal.SIGINT)
        out, err = watch.communicate(timeout=20)
    assert (watch.returncode, out) == (130, "")
    assert "Traceback" not in err


class Watches:
    """A client whose watches go by a script."""

    def __init__(self, *scripts: list[AdapterInfo] | Unavailable) -> None:
        self._scripts = list(scripts)
        self.asked = 0

    async def watch(self, refs):
        self.asked += 1
        if self.asked > len(self._scripts):
            await asyncio.Event().wait()
        script = self._scripts[self.asked - 1]
        if isinstance(script, Unavailable):
            raise script
        for adapter in script:
            yield adapter


async def _no_pause(seconds: float) -> None:
    await asyncio.sleep(0)


async def test_a_watch_goes_on_elsewhere_and_repeats_nothing(capsys):
    away = Unavailable("the replica is ending")
    watches = Watches(
        [AdapterInfo(A, "loading")], away, [AdapterInfo(A, "loading"), AdapterInfo(A, "ready")]
    )
    shown: list[str] = []
    enough = asyncio.Event()

    def show(adapter: AdapterInfo) -> None:
        shown.append(adapter.state)
        if adapter.state == "ready":
            enough.set()

    watching = asyncio.create_task(watch_on(watches, (), show, sleep=_no_pause))
    await enough.wait()
    watching.cancel()
    assert shown == ["loading", "ready"]
    assert capsys.readouterr().err.count("watching again") == 1


async def test_a_watch_ends_when_the_generator_stays_away():
    watches = Watches(*[Unavailable("away")] * 3)
    with pytest.raises(Unavailable, match="away"):
        await watch_on(watches, (), print, away_seconds=0.0, sleep=_no_pause)
    assert watches.asked == 1
