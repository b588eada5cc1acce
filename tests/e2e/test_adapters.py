"""`tuneproof adapters` at the real generator: what it says is what answers."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from tuneproof.adapters import Registry, identify_base
from tuneproof.cli.main import main
from tuneproof.sdk import Generation, GeneratorClient, Sampling

from ..conftest import ROOT, Running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MODEL = ROOT / "demo" / "telecom-reader"
Run = Callable[..., str]


@pytest.fixture
def run(
    running: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs `tuneproof adapters …`, which must end well; gives its standard output."""

    def call(*arguments: str) -> str:
        where = [] if arguments[0] == "verify" else ["--state", str(running.state)]
        monkeypatch.setattr(sys, "argv", ["tuneproof", "adapters", *arguments, *where])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert not ended.value.code, captured.err
        return captured.out

    return call


@pytest.fixture
def stock(running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Two adapters of the registry, and the word that each says whatever it is asked."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    from marker_adapters import Base, markers, write_marker

    base, registry = Base.read(MODEL), Registry(str(running.state / "artifacts"))
    words = list(markers(MODEL, base).items())[:2]
    found = {}
    for word, token in words:
        folder = write_marker(tmp_path / word, base, token, rank=8)
        identity = identify_base(MODEL)
        ref = registry.commit(folder, name=f"cli-{word}", base=identity, provenance={})
        found[str(ref)] = word
    return found


def test_what_an_alias_is_set_to_answers(running: Running, run: Run, stock: dict[str, str]) -> None:
    first, second = stock
    name, _, digest = first.partition("@sha256:")
    place = running.state / "artifacts" / "adapters" / name / digest
    assert "no defect" in run("verify", str(place), "--base", str(MODEL), "--max-rank", "16")

    for ref in stock:
        told = json.loads(run("declare", ref, "--wait", "--json"))
        assert told["ready"]
        assert {"fetch", "verify", "load", "warm"} <= set(told["stage_seconds"])
    assert set(stock) <= {each["ref"] for each in json.loads(run("list", "--json"))["adapters"]}

    run("alias", "cli", first, "--reason", "to begin with")
    assert answered_by(running, stock) == {first}
    run("alias", "cli", first, "--expect", first, "--canary", f"{second}:99")
    assert second in answered_by(running, stock)
    assert f"cli points to {first} again" in run("rollback", "cli")
    assert answered_by(running, stock) == {first}

    history = json.loads(run("history", "cli", "--json"))["versions"]
    assert [each["canary_percent"] for each in history] == [0, 99, 0]
    assert history[-1]["reason"] == "to begin with"
    assert all(each["set_by"] for each in history)
    run("remove", second, "--drain", "5")
    assert second not in run("list")
    assert json.loads(run("show", "cli", "--json"))["ref"] == first


def answered_by(running: Running, stock: dict[str, str]) -> set[str]:
    """Who answers for the alias, by what the replies say, which is by what their texts say."""

    async def ask(client: GeneratorClient) -> str:
        chat = [{"role": "user", "content": "What is the Alder 40 transmit power?"}]
        events = client.generate("cli", chat, Sampling(max_tokens=4), restart_on_loss=True)
        async with aclosing(events):
            *_, last = [event async for event in events]
        assert isinstance(last, Generation)
        assert set(last.text.split()) == {stock[last.adapter_ref]}
        return last.adapter_ref

    async def ask_some() -> set[str]:
        async with GeneratorClient(running.addresses["generator"]["grpc"]) as client:
            return set(await asyncio.gather(*[ask(client) for _ in range(8)]))

    return asyncio.run(ask_some())
