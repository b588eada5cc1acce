"""Lets tests import the modules that lie beside them (`fakes`, `small_study`)."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

sys.path.insert(0, str(Path(__file__).parent))


# Imported late: only tests with a browser pay for it. Of a module, not of the session: while
# playwright's sync API is open, no async test can run.
@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    from browsing import chromium

    with chromium() as launched:
        yield launched


TRAINERS = 40
LINE = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


@pytest.fixture(scope="session")
def trainers() -> Iterator[Iterator[str]]:
    """Addresses of trainers that train nothing, all in one process."""
    program = [sys.executable, str(Path(__file__).with_name("fake_trainer.py")), str(TRAINERS)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield iter(process.stdout.readline().split())
        process.kill()


@pytest.fixture
def trainer(trainers: Iterator[str]) -> str:
    """The address of a trainer that no other test uses."""
    return next(trainers)


@pytest.fixture
def bare_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Runs `tuneproof runs` where no trainer is known, beside a file of conversations."""
    from small_study import invoke

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNEPROOF_TRAINER_TARGET", raising=False)
    Path("train.jsonl").write_text(json.dumps(LINE) + "\n")
    return partial(invoke, capsys, monkeypatch, "runs")


@pytest.fixture
def runs(
    bare_runs: Callable[..., Any], trainer: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Runs `tuneproof runs` at a trainer: exit code, standard output, standard error."""
    monkeypatch.setenv("TUNEPROOF_TRAINER_TARGET", trainer)
    return bare_runs


@pytest.fixture
def told(runs: Callable[..., tuple[int, str, str]]) -> Callable[..., Any]:
    """Runs a command that must succeed; gives its JSON."""

    def call(*arguments: str) -> Any:
        code, out, err = runs(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return call
