"""The Dockerfiles, read as text: no container engine is needed."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted([*ROOT.glob("services/*/Dockerfile"), ROOT / "orchestrator/Dockerfile"])

pytestmark = pytest.mark.timeout(10)


def instructions(path: Path) -> list[tuple[str, str]]:
    """Pairs of an instruction and its text, comments left out and lines joined."""
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    pairs = (line.split(None, 1) for line in joined.splitlines() if line.strip())
    return [(name.upper(), " ".join(text.split())) for name, text in pairs]


def last_stage(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    start = max(number for number, (name, _) in enumerate(found) if name == "FROM")
    return found[start:]


def test_every_service_has_one() -> None:
    services = {path.parent for path in ROOT.glob("services/*/pyproject.toml")}
    assert {path.parent for path in DOCKERFILES} == {*services, ROOT / "orchestrator"}
    assert len(services) == 4


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.parent.name)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_the_base_is_a_build_argument_with_a_default(dockerfile: Path) -> None:
    found = instructions(dockerfile)
    assert found[0][0] == "ARG"
    assert re.fullmatch(r"BASE=\S+:\S+", found[0][1])
    bases = [text.split()[0] for name, text in found if name == "FROM"]
    assert bases == ["${BASE}"] * len(bases)
    assert len(bases) > 1


def test_it_runs_as_a_user_with_a_passwd_entry_who_is_not_root(dockerfile: Path) -> None:
    stage = last_stage(instructions(dockerfile))
    users = [number for number, (name, _) in enumerate(stage) if name == "USER"]
    assert users
    user, group = stage[users[-1]][1].split(":")
    assert int(user) > 0
    assert int(group) > 0
    added = [
        number
        for number, (name, text) in enumerate(stage)
        if name == "RUN" and f"useradd --uid {user} --gid {group}" in text
    ]
    assert added
    assert added[0] < users[-1]
    assert [name for name, _ in stage[users[-1] :] if name in {"RUN", "COPY", "ADD"}] == []


def test_its_entry_point_is_the_console_script(dockerfile: Path) -> None:
    project = tomllib.loads((dockerfile.parent / "pyproject.toml").read_text("utf-8"))["project"]
    entries = [text for name, text in last_stage(instructions(dockerfile)) if name == "ENTRYPOINT"]
    assert [json.loads(entry) for entry in entries] == [list(project["scripts"])]


def test_it_installs_what_it_copies_under_the_constraints(dockerfile: Path) -> None:
    found = instructions(dockerfile)
    copied = {
        text.split()[0] for name, text in found if name == "COPY" and not text.startswith("--from")
    }
    assert "constraints.txt" in copied
    assert all((ROOT / source).exists() for source in copied)
    assert all(
        not source.startswith("services/") or source.endswith(dockerfile.parent.name)
        for source in copied
    )
    own = dockerfile.parent.relative_to(ROOT)
    installs = [
        text for name, text in found if name == "RUN" and f" ./{own}" in text.replace('"', "")
    ]
    assert len(installs) == 1
    assert "--constraint constraints.txt" in installs[0]
    for source in copied - {"constraints.txt"}:
        assert f"./{source}" in installs[0]


def test_it_installs_every_distribution_of_ours_that_it_needs(dockerfile: Path) -> None:
    needed, left = set(), [dockerfile.parent]
    while left:
        folder = left.pop()
        project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
        for requirement in project["dependencies"]:
            ours = re.match(r"tuneproof-(\w+)", requirement)
            if ours and ours[1] not in needed:
                needed.add(ours[1])
                left.append(ROOT / "libs" / ours[1])
    copied = {text.split()[0] for name, text in instructions(dockerfile) if name == "COPY"}
    assert {f"libs/{name}" for name in needed} == {
        each for each in copied if each.startswith("libs/")
    }


def test_it_carries_labels_and_no_secret(dockerfile: Path) -> None:
    found = instructions(dockerfile)
    labels = " ".join(text for name, text in found if name == "LABEL")
    for label in ("title", "description", "licenses", "version"):
        assert f"org.opencontainers.image.{label}=" in labels
    assert not re.search(r"(TOKEN|API_KEY|PASSWORD)=", dockerfile.read_text("utf-8"))


def test_the_build_context_holds_what_is_copied_and_no_environment() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {"!constraints.txt", "!libs", "!services", "!orchestrator"} <= set(rules)
