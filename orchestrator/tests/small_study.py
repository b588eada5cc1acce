"""A small study for tests: its file, its model and rubrics, and ways to run it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from types import MappingProxyType

import pytest
import yaml
from fakes import World

from tuneproof.cli.main import main
from tuneproof.judge.v1 import judge_pb2
from tuneproof.results import StudyResults
from tuneproof.rubrics import Rubric, parse_rubric
from tuneproof.sdk import Endpoints
from tuneproof.study.collect import load_results
from tuneproof.study.design.prepare import Request, identities_for, prepare
from tuneproof.study.looking import looked_at, planned_looks
from tuneproof.study.run import run_study
from tuneproof.study.services import GivenServices, Services
from tuneproof.study.state.lock import exclusive
from tuneproof.study.state.store import FILE_NAME, open_state

STUDY = """\
study: small
description: A study for tests.
dataset: {name: telecom, seed: 7, documents: 20, facts_per_document: 4}
split: {seed: 1, test_share: 0.5, test_items: 12}
corpus: {max_tokens: 64}
retrieval: {mode: hybrid, k: 3}
generation: {max_tokens: 32}
arms:
  - name: baseline
  - {name: short, tune: {references: short}}
  - {name: closed, tune: {references: full, context: none}}
training: {sizes: [8], seeds: [1], hyperparameters: {rank: 4}}
judge: {rubrics: [tele-accuracy@1, tele-completeness@1], repeats: 2, seed: 1}
comparison: {margin: {accuracy: 0.25, completeness: 0.25}}
checks: {reader: {facts: 4, items: 5}, judge: {forms: 6}}
services: {model: tiny, rubrics: rubrics, toy: true}
"""

OLD_ARMS = STUDY[STUDY.index("  - name: baseline") : STUDY.index("training:")]
ARMS = """\
  - name: baseline
  - {name: by-heart, context: none}
  - {name: alone, context: none, tune: {references: full, context: none}}
  - {name: raft, tune: {references: full, raft: {gold_share: 0.5}}}
  - {name: shots, examples: {k: 3, references: short}}
  - {name: near, examples: {k: 2, references: full, choose: nearest, context: none}}
  - {name: ctx, tune: {references: short}}
"""
"""One of each kind, in the place of `OLD_ARMS`."""


ANNOUNCED = MappingProxyType({})
"""The environment of a study that knows the services of its state only."""


class Quiet:
    """A progress that shows nothing and keeps the names of the stages."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, name, total, done):
        self.stages.append(name)
        return _QuietStage()

    def say(self, text):
        pass


class _QuietStage:
    def __enter__(self):
        return self

    def __exit__(self, *failure):
        pass

    def advance(self, count=1):
        pass

    def note(self, text):
        pass


def rubric_message(rubric: Rubric) -> judge_pb2.Rubric:
    """A rubric as a judge tells it."""
    names = [
        "id", "digest", "criterion", "description", "scale", "low", "high", "unit", "decimals",
        "steps", "template", "max_tokens",
    ]  # fmt: skip
    return judge_pb2.Rubric(**{name: getattr(rubric, name) for name in names})


class SmallStudy:
    """The files of a small study in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "small.yaml"
        self.state = folder / "state"
        self.file.write_text(STUDY)
        (folder / "tiny").mkdir()
        (folder / "tiny" / "config.json").write_text("{}")
        (folder / "rubrics").mkdir()
        for criterion in ("accuracy", "completeness"):
            self.write_rubric(criterion)

    def write_rubric(
        self, criterion: str, steps: str = "Read it.", scale: tuple[int, int] = (1, 5)
    ) -> None:
        content = {
            "id": f"tele-{criterion}@1",
            "criterion": criterion,
            "description": "For tests.",
            "scale": {score: f"anchor {score}" for score in range(scale[0], scale[1] + 1)},
            "steps": [steps],
            "template": "{{answer}}",
            "max_tokens": 20,
        }
        (self.folder / "rubrics" / f"{criterion}.yaml").write_text(yaml.safe_dump(content))

    def edit(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))

    def world(self, **settings) -> World:
        """Fakes that have this study's rubrics."""
        world = World(**settings)
        for path in sorted((self.folder / "rubrics").glob("*.yaml")):
            world.rubrics.append(rubric_message(parse_rubric(path.read_bytes(), str(path))))
        return world

    def announce(self, target: str) -> None:
        """Writes the state folder's endpoints, as services started here do."""
        self.state.mkdir(exist_ok=True)
        names = ("retriever", "generator", "trainer", "judge")
        content = {name: {"grpc": target, "health": target} for name in names}
        (self.state / "endpoints.json").write_text(json.dumps(content))

    async def run(
        self,
        target: str = "",
        *,
        in_turn: bool = False,
        source=None,
        looks: int = 0,
        environment=ANNOUNCED,
        **flags,
    ) -> StudyResults:
        """Runs what is missing in this process.

        Args:
            looks: interim looks.
            source: of services; by default those that are announced, and those of the file.
            environment: names other services; this process's own when None.
        """
        if target:
            self.announce(target)
        request = Request(self.file, self.state, **flags)
        prepared = prepare(request)
        endpoints = Endpoints.discover(self.state, {}, environment=environment)
        identities = await identities_for(prepared, request, endpoints, external=False)
        with exclusive(self.state), open_state(self.state, write=True) as state:
            planned = planned_looks(state, prepared, looks)
            bases = prepared.sources.bases
            source = source or GivenServices(endpoints, progress=lambda *_: None, bases=bases)
            services = Services(source, identities=identities, sources=prepared.sources)
            async with services:
                store = str(self.state / "artifacts")
                for chain in looked_at(state, prepared, request, identities, planned):
                    await run_study(chain, services, Quiet(), artifacts=store, in_turn=in_turn)
            return load_results(chain)

    def rows(self) -> dict[str, tuple[str, str, str]]:
        """The whole table of results: kind, inputs and output by key."""
        import sqlite3

        with sqlite3.connect(self.state / FILE_NAME) as database:
            query = "SELECT key, kind, inputs, output FROM results"
            return {key: tuple(rest) for key, *rest in database.execute(query)}


async def command(*arguments: str, env: dict[str, str] | None = None) -> asyncio.subprocess.Process:
    """Starts `tuneproof` in a process of its own."""
    return await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "tuneproof.cli.main", *arguments],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )


def invoke(capsys, monkeypatch, *arguments: str) -> tuple[int, str, str]:
    """Runs `tuneproof` in this process: exit code, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["tuneproof", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


async def finished(*arguments: str) -> tuple[int, str, str]:
    """Runs `tuneproof` to its end: exit code, standard output, standard error."""
    process = await command(*arguments)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()
