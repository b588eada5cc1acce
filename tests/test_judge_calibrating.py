"""A real judge on a scripted endpoint: the documented commands to certify it, and how far one form
for several criteria agrees with a form for each."""

from __future__ import annotations

import asyncio
import csv
import importlib
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tuneproof.calibration import Asking, LabelledAnswer, calibrate, forms_table, load_set
from tuneproof.calibration.forms import agreement_of
from tuneproof.cli import asking
from tuneproof.cli.console import ExitCode
from tuneproof.cli.main import app
from tuneproof.results.certificate import read_certificate
from tuneproof.rubrics import RubricShelf
from tuneproof.sdk import JudgeClient
from tuneproof.servicekit.testing import serving
from tuneproof_judge.main import build
from tuneproof_judge.settings import JudgeSettings

from .conftest import ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

sys.path.append(str(ROOT))  # The judge's fake is named from there.
fakes = importlib.import_module("services.judge.tests.conftest")
batches = importlib.import_module("services.judge.tests.batch_api")
ACCURACY, COMPLETENESS = map(RubricShelf.load().get, ("accuracy@1", "completeness@1"))
COUNT = 40


def says(prompt: str) -> str:
    """Each answer holds its scores; in one form, completeness follows accuracy every fifth time."""
    said = re.search(r"> answer (\d+): (\d) and (\d)", prompt)
    assert said is not None
    number, accuracy, completeness = map(int, said.groups())
    if "Criterion: accuracy" in prompt and "Criterion: completeness" in prompt:
        pulled = accuracy if number % 5 == 0 else completeness
        return f"Reasons: read.\naccuracy: {accuracy}\ncompleteness: {pulled}"
    score = accuracy if "Criterion: accuracy" in prompt else completeness
    return f"Reasons: read.\nScore: {score}"


@pytest.fixture
async def endpoint() -> AsyncIterator:
    async with fakes.FakeEndpoint().running() as found:
        found.script = lambda asked: fakes.says(says(asked.prompt))
        yield found


@pytest.fixture
async def target(endpoint) -> AsyncIterator[str]:
    settings = JudgeSettings(endpoint_url=endpoint.url, endpoint_model="scripted")
    async with build(settings) as service, serving(service) as found:
        yield found


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["question", "answer", "reference", "label", "system"])
        for n in range(COUNT):
            scores = 1 + n % 5, 1 + n % 3
            said = f"answer {n}: {scores[0]} and {scores[1]}"
            rows.writerow([f"Q{n}", said, "R", "yes" if scores[0] > 2 else "no", "ab"[n % 2]])
    return path


async def test_one_form_beside_a_form_for_each(target, endpoint, table, tmp_path) -> None:
    labelled = load_set(str(table), None, "accuracy")
    twice = Asking(ACCURACY, repeats=2)
    kept = tmp_path / "grades.jsonl"
    async with JudgeClient(target) as judge:
        found = await calibrate(judge, labelled, twice, kept, joint=[COMPLETENESS])
        # By accuracy, by completeness, by both.
        assert len(endpoint.asked) == 3 * COUNT * 2
        again = await calibrate(judge, labelled, twice, kept, joint=[COMPLETENESS])
    assert len(endpoint.asked) == 3 * COUNT * 2
    assert again == found
    same, pulled = found.forms
    assert (same.criterion, same.answers, same.unscored) == ("accuracy", COUNT, 0)
    assert (same.difference.value, same.exact.value, same.kappa.value) == (0.0, 1.0, 1.0)
    changed = [(1, 1 + n % 3) for n in range(0, COUNT, 5)]
    assert pulled.difference.value == pytest.approx(sum(a - b for a, b in changed) / COUNT)
    assert pulled.exact.value == 1 - sum(a != b for a, b in changed) / COUNT
    assert pulled.difference.low < pulled.difference.value < pulled.difference.high < 0.2
    assert {one.source for one in found.sources} >= {"judge", "judge, one form"}
    assert "| completeness | 40 |" in forms_table(found.forms)


def test_agreement_is_that_of_the_rounded_means_and_unscored_ones_are_counted() -> None:
    from sklearn.metrics import cohen_kappa_score

    answers = [
        LabelledAnswer(str(n), "q", "a", (), "", str(n // 2)) for n in range(30)
    ]  # fmt: skip
    alone = {str(n): 1 + (n * 7 % 9) / 2 for n in range(30)}
    together = {name: min(5.0, mean + (int(name) % 4) / 4) for name, mean in alone.items()}
    found = agreement_of(ACCURACY, answers, {**alone, "3": None}, together)
    assert found is not None
    assert (found.answers, found.unscored) == (29, 1)
    pairs = [(int(alone[name] + 0.5), int(together[name] + 0.5)) for name in alone if name != "3"]
    theirs = cohen_kappa_score(*zip(*pairs, strict=True), labels=range(1, 6), weights="quadratic")
    assert found.kappa.value == pytest.approx(theirs, abs=1e-9)
    assert found.exact.value == sum(a == b for a, b in pairs) / 29
    assert agreement_of(ACCURACY, answers, {}, together) is None


def documented() -> list[list[str]]:
    """The commands of docs/judging.md that certify a judge."""
    text = (ROOT / "docs" / "judging.md").read_text()
    block = text.split("## Certificates", 1)[1].rsplit("```sh\n", 1)[1].split("```", 1)[0]
    lines = [line for line in block.splitlines() if line.startswith("tuneproof judge calibrate")]
    return [line.split()[1:] for line in lines]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[Any]]:
    """Runs `tuneproof` in a thread, its calls in this loop, as grpc wants one for all.

    Gives the JSON; the message where a service is not available.
    """

    async def call(*words: str) -> Any:
        loop = asyncio.get_running_loop()

        def in_loop(client, endpoints, work):
            async def asked():
                async with client.of(endpoints) as one:
                    return await work(one)

            return asyncio.run_coroutine_threadsafe(asked(), loop).result()

        monkeypatch.setattr(asking, "_run", in_loop)
        result = await asyncio.to_thread(CliRunner().invoke, app, words)
        if result.exit_code == ExitCode.UNAVAILABLE:
            return result.output
        assert result.exit_code == 0, result.output
        # The judge, in this process, logs to standard output too.
        return json.JSONDecoder().raw_decode(result.stdout[result.stdout.index("{\n") :])[0]

    return call


async def test_the_documented_commands_certify_a_judge(
    target, endpoint, table, tmp_path, command, *, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    more = ["--judge", target, "--state", str(tmp_path), "--repeats", "2", "--json"]
    plan, look, whole = [
        await command(*(str(table) if word == "evouna" else word for word in words), *more)
        for words in documented()
    ]
    assert plan["completions"] == COUNT * 2
    assert plan["price"] > 0
    assert look["answers"] <= whole["answers"] == COUNT
    certificate = read_certificate(tmp_path / "accuracy.json")
    assert certificate.digest == whole["certificate"]
    assert (certificate.judge_model, certificate.kappa) == ("scripted", 1.0)
    assert (tmp_path / "accuracy.svg").read_text().startswith("<svg")
    assert len(endpoint.asked) == COUNT * 2  # The look's grades are not paid for again.


async def test_a_calibration_by_batches_is_the_same_command_twice(table, tmp_path, command) -> None:
    async with batches.batch_api() as api:

        def script(body):
            if "seed" in body:
                return batches.refuses(400, "Unsupported parameter: 'seed'")
            return batches.says(says(body["messages"][0]["content"]))

        api.script = script
        settings = JudgeSettings(
            endpoint_url=api.url, endpoint_model="scripted", cache=tmp_path / "cache.sqlite",
            batch=True, batch_poll=0.1,
        )  # fmt: skip
        async with build(settings) as service, serving(service) as target:
            words = ["judge", "calibrate", str(table), "--judge", target, "--repeats", "2"]
            words += ["--state", str(tmp_path), "--json"]
            waits = await command(*words)
            assert "40 of 40 grades wait for a batch" in waits
            while not api.batches:
                await asyncio.sleep(0.05)
            assert len(api.lines("batch-0")) == 2 * COUNT - 1
            api.end("batch-0")
            while isinstance(found := await command(*words), str):
                await asyncio.sleep(0.05)
    assert (found["answers"], found["judge_model"]) == (COUNT, "scripted")
    assert found["refused_parameters"] == ["seed"]
    assert list(api.batches) == ["batch-0"]
