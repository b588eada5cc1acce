"""README and tutorial followed from top to bottom, word by word, in a folder like a fresh clone."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import yaml

from tuneproof.sdk import RetrieverClient

from ..conftest import ROOT, Running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

README, TUTORIAL = ROOT / "README.md", ROOT / "docs" / "tutorial.md"
DEFAULT_PORTS = {
    "47801": ("retriever", "grpc"),
    "47802": ("generator", "grpc"),
    "47803": ("trainer", "grpc"),
    "47804": ("judge", "grpc"),
    "47880": ("generator", "openai"),
}
NOT_RUN = {
    "make test": "it would run this test",
    "MODEL=Qwen/Qwen3-0.6B make demo": "downloads a model",
    ".venv/bin/tuneproof loadtest swap --pool refs.txt --probe probes.jsonl --slo slo.yaml"
    " --adapters 8 --rate 20": "takes adapters and objectives of the reader's own",
    "JUDGE_URL=https://api.openai.com/v1 JUDGE_MODEL=gpt-4o make demo": "costs money",
    "tuneproof up studies/demo.yaml --judge-url https://api.openai.com/v1 --judge-model gpt-4o": (
        "costs money"
    ),
    "tuneproof study run mine/shop.yaml --up --model Qwen/Qwen3-0.6B --judge-url"
    " https://api.openai.com/v1 --judge-model gpt-4o --rubric accuracy@1": "downloads a model",
}
"""Commands that the pages name and this test leaves out, and why."""


@dataclass
class Place:
    """A folder that looks like a fresh clone whose demo is the small study."""

    folder: Path
    running: Running

    @cached_property
    def corpus(self) -> str:
        async def find() -> str:
            target = self.running.addresses["retriever"]["grpc"]
            async with RetrieverClient(target, token=None) as retriever:
                (name,) = [
                    each.name for each in await retriever.list() if each.name.startswith("telecom-")
                ]
                return name

        return asyncio.run(find())

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path}

    def here(self, text: str) -> str:
        """A text with the ports that the services have here, and the demo's corpus: other tests
        have made more."""
        for port, (service, kind) in DEFAULT_PORTS.items():
            address = self.running.addresses[service][kind].removeprefix("http://")
            actual = re.search(r":(\d+)", address)
            assert actual is not None
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{actual[1]}")
        asking = "tuneproof ask "
        return text.replace(asking, f"{asking}--corpus {self.corpus} ") if asking in text else text

    def run(self, *command: str) -> str:
        """Runs a command to its end; what it prints."""
        ended = subprocess.run(
            [self.here(each) for each in command],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=self.folder,
            env=self.environment,
        )
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def stay(self, command: str) -> subprocess.Popen[str]:
        """Runs a command that stays, as in a second terminal, until it says how to stop it."""
        process = subprocess.Popen(
            ["bash", "-ec", command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.environment,
            start_new_session=True,
        )
        assert process.stderr is not None
        for line in process.stderr:
            if "Ctrl-C stops the services" in line:
                return process
        raise AssertionError(f"{command} ended")


@pytest.fixture
def place(running: Running, tmp_path: Path) -> Place:
    folder = tmp_path / "clone"
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.name not in {".git", ".tuneproof", "studies"}:
            (folder / path.name).symlink_to(path)
    (folder / ".tuneproof").symlink_to(running.state)
    shutil.copytree(ROOT / "studies", folder / "studies")
    spec = yaml.safe_load(running.study.read_text())
    (folder / "studies" / "demo.yaml").write_text(yaml.safe_dump({**spec, "study": "demo"}))
    return Place(folder, running)


def steps(page: Path) -> Iterator[tuple[str, str, str]]:
    """Each block of a page: the words before it, its language, its text."""
    parts = re.split(r"^```(\w*)\n(.*?)^```$", page.read_text(), flags=re.M | re.S)
    return zip(parts[::3], parts[1::3], parts[2::3], strict=False)


def commands(block: str) -> Iterator[str]:
    """The lines of a shell block, continued ones as one, without comments."""
    for line in re.sub(r"\\\n\s*", "", block).splitlines():
        command = re.sub(r"(^|\s+)#\s.*$", "", line).strip()
        if command:
            yield command


def follow(page: Path, place: Place) -> dict[str, str]:
    """Does what a page says; what each block printed."""
    printed: dict[str, str] = {}
    staying: list[subprocess.Popen[str]] = []
    try:
        for words, language, block in steps(page):
            saved = re.search(r"(?:[Ss]ave (?:it|this) as|the study as) `([^`]+)`[^`]*$", words)
            if saved and language in {"python", "json", "yaml"}:
                path = place.folder / saved[1]
                path.parent.mkdir(exist_ok=True)
                path.write_text(place.here(block))
            elif language == "python":
                printed[block] = place.run(sys.executable, "-c", block)
            elif language == "sh":
                # What a command sets is there for the next ones of the block.
                script = "\n".join(each for each in commands(block) if each not in NOT_RUN)
                if script == "make up":
                    staying.append(place.stay(script))
                else:
                    printed[script] = place.run("bash", "-ec", script)
    finally:
        for process in staying:
            # Not Ctrl-C: it would end the services, which other tests use too.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return printed


def said(printed: dict[str, str], part: str) -> str:
    """What the one block printed that holds a part."""
    (found,) = [output for command, output in printed.items() if part in command]
    return found


def test_the_readme_can_be_followed(place: Place, data: Path) -> None:
    (place.folder / "12B1_golden.json").symlink_to(data / "bioasq" / "12B1_golden.json")
    printed = follow(README, place)
    generated = said(printed, "GeneratorService")
    assert "46 dBm" in "".join(re.findall(r'"text": "([^"]*)"', generated))
    assert '"servedBy"' in generated
    assert "46 dBm" in said(printed, "OpenAI")
    assert "live points to" in said(printed, "adapters rollback")
    assert (place.folder / "loadtest.html").exists()
    assert re.search(
        r'"telecom-completeness@1".*"mean": [1-5]', said(printed, "JudgeService"), re.S
    )


def test_the_tutorial_can_be_followed(place: Place) -> None:
    printed = follow(TUTORIAL, place)
    assert said(printed, "--adapter short-references")
    answers = said(printed, "rag_messages")
    assert "telecom-reader -> Quince 64 battery voltage is 26 V" in answers
    assert re.search(r"^short-references -> \S", answers, re.M)
    assert "short-references is " in said(printed, "load.py")
    grades = said(printed, "load.py") + said(printed, "grade_many")
    assert re.search(r"^right \{.*\} token F1 1.0$", grades, re.M)


def test_nothing_is_left_out_but_what_is_named() -> None:
    pages = [README, TUTORIAL]
    blocks = [block for page in pages for _, language, block in steps(page) if language == "sh"]
    assert set(NOT_RUN) <= {command for block in blocks for command in commands(block)}
