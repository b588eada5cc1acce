"""Services that cannot be had: told in words, and nothing is left running."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fakes import World, service_of
from small_study import SmallStudy, finished

from tuneproof.local.options import PREFERRED_PORTS
from tuneproof.servicekit.auth import Tokens
from tuneproof.servicekit.testing import serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def complaint(err: str) -> str:
    """What went wrong, from its first word on."""
    assert "Traceback" not in err
    _, mark, told = err.partition("tuneproof: ")
    assert mark, err
    return told


def left_of(state: Path) -> list[int]:
    """Processes that still work in a state folder."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(str(state) in part for part in process.info["cmdline"] or [])
        and process.pid != os.getpid()
    ]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


@pytest.mark.e2e
@pytest.mark.parametrize("command", ["up", "study run"])
async def test_a_model_id_that_nobody_has_is_named_and_nothing_stays(
    tmp_path, monkeypatch, command
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    small = SmallStudy(tmp_path)
    arguments = {"up": ["up"], "study run": ["study", "run", str(small.file), "--up"]}[command]
    code, out, err = await finished(
        *arguments, "--model", "no/such-model", "--state", str(small.state)
    )
    assert code == 4, err
    told = complaint(err)
    assert "ended while it started. The end of" in told
    assert "--model no/such-model is not a folder here, and the hub does not give it: " in told
    assert "Give a folder in Hugging Face format or another id" in told
    assert out == ""
    assert left_of(small.state) == []
    assert not (small.state / "endpoints.json").exists()


@pytest.mark.process
@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("./nowhere", "the model folder ./nowhere does not exist; see --model"),
        ("rubrics", "rubrics lacks config.json, so it is not a model folder; give one in"),
    ],
)
async def test_a_folder_without_a_model_is_told_before_anything_starts(
    tmp_path, monkeypatch, model, told
):
    small = SmallStudy(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, out, err = await finished("up", "--model", model, "--state", str(small.state))
    assert code == 2
    assert complaint(err).startswith(told)
    assert out == ""
    assert not small.state.exists()


@pytest.mark.process
@pytest.mark.parametrize("name", ["trainer", "openai"])
async def test_a_taken_port_is_told_with_who_has_it(tmp_path, taken, name):
    small = SmallStudy(tmp_path)
    ports = small.state / "services" / "ports.json"
    ports.parent.mkdir(parents=True)
    ports.write_text(json.dumps(dict.fromkeys(PREFERRED_PORTS, 0) | {name: taken}))
    code, out, err = await finished(
        "up", "--model", str(tmp_path / "tiny"), "--state", str(small.state)
    )
    assert code == 4
    service = "generator" if name == "openai" else name
    holder = f"process {os.getpid()} ({psutil.Process().name()})"
    assert complaint(err) == (
        f"the {service} cannot start: port {taken} is taken by {holder}."
        f" End that, or delete {ports} to get other ports\n"
    )
    assert out == ""
    assert not list(ports.parent.glob("*.log"))


@pytest.mark.process
@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "a bearer token is required"),
        (["--token", "w" * 20], "the bearer token is not known here"),
    ],
)
async def test_a_wrong_token_is_told(tmp_path, flags, told):
    tokens = Tokens(((b"r" * 20, "manage"),))
    async with serving(service_of(World()), tokens=tokens) as target:
        flags = [*flags, "--retriever", target, "--generator", target]
        code, out, err = await finished("ask", "What?", "--state", str(tmp_path), *flags)
        assert code == 1
        assert complaint(err).startswith(f"the retriever at {target}: {told}")
        assert err.endswith("tokens with --token, or in TUNEPROOF_TOKEN\n")
        assert "w" * 20 not in err
        assert out == ""


@pytest.mark.process
async def test_a_study_with_a_wrong_token_is_told(tmp_path):
    small = SmallStudy(tmp_path)
    world = small.world()
    tokens = Tokens(((b"r" * 20, "manage"),))
    async with serving(service_of(world), tokens=tokens) as target:
        small.announce(target)
        command = ["study", "run", str(small.file), "--state", str(small.state)]
        code, out, err = await finished(*command, "--token", "w" * 20)
        assert code == 1
        assert complaint(err).startswith(
            f"the retriever at {target}: the bearer token is not known here; give one of"
        )
        assert "w" * 20 not in err
        assert out == ""
        assert not world.calls
