"""Overlay `cpu` from images of the Dockerfile runs the demo study, driven from outside and as a
submitted Job, and has adapters served by kubectl.

By itself only a part of the study, one training; `make verify-submitted` runs all of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tuneproof.adapters import Registry
from tuneproof_trainer.execution.jobs import RUN_LABEL

from ..conftest import COMMAND, ROOT
from .cluster import RESTRICTED, Cluster
from .installation import ARTIFACTS, NAMESPACE, Installation

STUDY = ROOT / "studies/demo.yaml"
HERE = ROOT / ".tuneproof"
"""Where `make demo` keeps what it found on one machine."""

pytestmark = pytest.mark.timeout(3000)


def tuneproof(*arguments: str | Path, **variables: str) -> str:
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | variables,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def verdicts(study: Path, state: Path, *more: str) -> dict[str, str]:
    """What a study says of each tuned cell, and of each of its comparisons."""
    report = json.loads(tuneproof("study", "report", study, "--state", state, "--json", *more))
    cells = {each["cell"]: each["phrase"] for each in report["verdict"]["cells"]}
    compared = report["comparisons"]
    return cells | {f"{each['cell']} {each['measure']}": each["verdict"] for each in compared}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's, or its baseline and first tuned arm, which are answered and judged alike."""
    if os.environ.get("TUNEPROOF_FULL"):
        return STUDY
    content = yaml.safe_load(STUDY.read_text())
    content["arms"] = content["arms"][:2]
    for name in ("model", "rubrics"):
        content["services"][name] = str(STUDY.parent / content["services"][name])
    part = tmp_path_factory.mktemp("study") / STUDY.name
    part.write_text(yaml.safe_dump(content))
    return part


@pytest.fixture(scope="module")
def on_one_machine(study: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By what `make demo` has found, which makes it a matter of seconds."""
    state = tmp_path_factory.mktemp("here") / "state"
    if HERE.is_dir():
        shutil.copytree(HERE, state)
    tuneproof("study", "run", study, "--up", "--state", state)
    return verdicts(study, state)


def test_every_pod_is_ready_in_a_namespace_that_is_restricted(
    cluster: Cluster, installed: Installation
) -> None:
    pods = cluster.get("pods", "--namespace", NAMESPACE)
    ready = {
        each["metadata"]["name"]: [
            status["ready"] for status in each["status"]["containerStatuses"]
        ]
        for each in pods
    }
    judge = next(name for name in ready if name.startswith("judge-"))
    operator = next(name for name in ready if name.startswith("adapter-operator-"))
    names = ("generator-0", "retriever-0", "retriever-1", "trainer-0", "weaviate-0")
    assert ready == {name: [True] for name in (operator, judge, *names)}
    (space,) = cluster.get("namespace", NAMESPACE)
    assert RESTRICTED.items() <= space["metadata"]["labels"].items()


def run_from_outside(study: Path, installed: Installation, state: Path) -> dict[str, str]:
    """Its verdicts."""
    command = ("study", "run", study, "--state", state, *installed.flags())
    tuneproof(*command, **installed.environment)
    return verdicts(study, state)


@pytest.mark.slow
def test_one_from_outside_and_a_job_at_the_same_time_end_with_the_same_verdicts(
    study: Path, on_one_machine: dict[str, str], installed: Installation, tmp_path: Path
) -> None:
    """The first test that runs the study: both begin with nothing, and share what they make."""
    there = installed.context()
    tuneproof(*there, "study", "submit", study)
    assert run_from_outside(study, installed, tmp_path / "outside") == on_one_machine
    tuneproof(*there, "study", "logs", study, "--follow")
    assert verdicts(study, tmp_path / "job", "--submitted", *there) == on_one_machine


def test_the_demo_ends_with_the_same_verdicts_as_on_one_machine(
    study: Path,
    cluster: Cluster,
    on_one_machine: dict[str, str],
    installed: Installation,
    tmp_path: Path,
) -> None:
    assert run_from_outside(study, installed, tmp_path) == on_one_machine
    # Each training was a Job, of the trainer's own image, and committed to S3.
    tuned = sum(" " not in each for each in on_one_machine)
    jobs = cluster.get("jobs", "--namespace", NAMESPACE, "--selector", RUN_LABEL)
    (image,) = {job["spec"]["template"]["spec"]["containers"][0]["image"] for job in jobs}
    assert image == "tuneproof/trainer:0.1.0"
    assert [job["status"]["succeeded"] for job in jobs] == [1] * tuned
    assert len(Registry(ARTIFACTS).list()) == tuned


def test_the_operators_pod_has_the_pool_serve_what_kubectl_declares(
    cluster: Cluster, installed: Installation
) -> None:
    """The last test here: of adapters that the study has trained."""
    ref = str(Registry(ARTIFACTS).list()[0])
    one = {
        "apiVersion": "tuneproof.dev/v1alpha1",
        "kind": "Adapter",
        "metadata": {"name": "one", "namespace": NAMESPACE},
        "spec": {"ref": ref, "alias": "live"},
    }
    cluster.kubectl.apply(one)
    for kind in ("Ready", "Aliased"):
        waits = ("wait", "adapter/one", f"--for=condition={kind}", "--timeout=60s")
        cluster.kubectl(*waits, "--namespace", NAMESPACE)
    question = "What is the Alder 40 transmit power?"
    asked = ("ask", question, "--adapter", "live", "--json")
    assert ref in tuneproof(*installed.context(), *asked)
