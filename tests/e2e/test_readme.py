"""The commands of the README, word by word, at the services that run here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import ROOT, Running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

README = (ROOT / "README.md").read_text()
DEFAULT_PORTS = {
    "47801": ("retriever", "grpc"),
    "47802": ("generator", "grpc"),
    "47803": ("trainer", "grpc"),
    "47804": ("judge", "grpc"),
    "47880": ("generator", "openai"),
}


def blocks(language: str, containing: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [block for block in found if containing in block]


def here(block: str, running: Running) -> str:
    """The block with the ports that the services have here, and this environment's programs."""
    for port, (service, kind) in DEFAULT_PORTS.items():
        actual = re.search(r":(\d+)", running.addresses[service][kind].removeprefix("http://"))
        assert actual is not None
        block = block.replace(f"127.0.0.1:{port}", f"127.0.0.1:{actual[1]}")
    return block.replace(".venv/bin/", f"{Path(sys.executable).parent}/")


def run(command: list[str]) -> str:
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_generator_answers_over_grpc(running: Running) -> None:
    (block,) = blocks("sh", "GeneratorService")
    printed = run(["bash", "-ec", here(block, running)])
    deltas = re.findall(r'"text": "([^"]*)"', printed)
    assert "46 dBm" in "".join(deltas)
    assert '"servedBy"' in printed


def test_the_generator_answers_by_the_openai_client(running: Running) -> None:
    (block,) = blocks("python", "OpenAI")
    assert "46 dBm" in run([sys.executable, "-c", here(block, running)])


def test_the_judge_grades(running: Running) -> None:
    (block,) = blocks("sh", "JudgeService")
    printed = run(["bash", "-ec", here(block, running)])
    assert '"telecom-completeness@1"' in printed
    assert re.search(r'"mean": [1-5]', printed)
