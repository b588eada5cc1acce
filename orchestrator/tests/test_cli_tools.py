"""`tuneproof ask`, `doctor`, and the root of the command."""

from __future__ import annotations

import json
from functools import partial
from importlib import import_module
from types import SimpleNamespace

import pytest
from small_study import invoke

from tuneproof.cli.checkup import PACKAGES
from tuneproof.cli.console import ExitCode, code_of
from tuneproof.sdk import Generation, Restarted
from tuneproof.servicekit.errors import InvalidInput, NotFound, Unavailable
from tuneproof.study.state.lock import StateHeld

ask = import_module("tuneproof.cli.ask")
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def run(capsys, monkeypatch):
    return partial(invoke, capsys, monkeypatch)


def test_the_doctor_tells_what_is_there_and_how_to_get_the_rest(tmp_path, run):
    code, out, err = run("doctor", "--json", "--state", str(tmp_path))
    findings = {each["what"]: each for each in json.loads(out)["findings"]}
    assert {f"packages of the {service}" for service in PACKAGES} <= set(findings)
    assert {"Python", "disk", "memory", "data", "tool make"} <= set(findings)
    assert findings["service generator"]["detail"] == "does not run here"
    for each in findings.values():
        assert each["state"] == "ok" or each["advice"], each
    missing = any(each["state"] == "missing" for each in findings.values())
    assert code == (1 if missing else 0), err


def test_the_doctor_sees_a_service_that_is_gone(tmp_path, run):
    announced = {"judge": {"grpc": "127.0.0.1:1", "health": "127.0.0.1:1"}}
    (tmp_path / "endpoints.json").write_text(json.dumps(announced))
    _, out, _ = run("doctor", "--json", "--state", str(tmp_path))
    findings = {each["what"]: each for each in json.loads(out)["findings"]}
    assert findings["service judge"]["state"] == "warning"
    assert "not ready" in findings["service judge"]["detail"]


def test_asking_without_services_says_how_to_start_them(tmp_path, run):
    code, _, err = run("ask", "What?", "--state", str(tmp_path))
    assert code == 4
    assert "`tuneproof up`" in err


def test_help_shows_examples(run):
    for command in (["study", "run"], ["study", "report"], ["ask"], ["doctor"]):
        code, out, _ = run(*command, "--help")
        assert code == 0
        assert "Example" in out


def test_an_unknown_flag_is_bad_input(run):
    code, _, err = run("doctor", "--nonsense")
    assert code == 2
    assert "--nonsense" in err


def test_exit_codes_tell_what_happened():
    assert code_of(InvalidInput("x")) is ExitCode.BAD_INPUT
    assert code_of(Unavailable("x")) is ExitCode.UNAVAILABLE
    assert code_of(StateHeld("x")) is ExitCode.HELD
    assert code_of(NotFound("x")) is ExitCode.FAILED


async def test_an_answer_whose_replica_is_lost_begins_again(monkeypatch, capsys):
    asked = {}
    whole = Generation("whole", "stop", 1, 1, 0, "toy", "", "b", {})

    class Losing:
        @classmethod
        def of(cls, _):
            return cls()

        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            pass

        async def generate(self, *_, **how):
            asked.update(how)
            for piece in ("who", Restarted("replica a is lost", 2), "whole", whole):
                yield piece

    monkeypatch.setattr(ask, "GeneratorClient", Losing)
    assert await ask._answer(SimpleNamespace(), "", [], 4, show=True) == whole
    assert asked == {"restart_on_loss": True}
    assert "replica a is lost; the answer begins again" in capsys.readouterr().err
