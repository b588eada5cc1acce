"""The commands of deploy/k8s/README.md from an empty cluster to the first grade."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..rendering import K8S, ROOT
from .cluster import Cluster
from .images import build, load

FULL = bool(os.environ.get("TUNEPROOF_FULL"))
NAMESPACE = "tuneproof"
IMAGE = "tuneproof/retriever:0.1.0"
"""The one that no other test here needs."""
SECONDS = 1500

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3000 if FULL else 180)]


@pytest.fixture
def commands() -> list[str]:
    text = (K8S / "README.md").read_text("utf-8")
    found = re.search(r"## From an empty cluster.*?```sh\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1].splitlines()


@pytest.fixture
def emptied(cluster: Cluster) -> Iterator[None]:
    """Without the namespace, before and after."""

    def clear() -> None:
        cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")

    clear()
    yield
    clear()


def shell(cluster: Cluster, script: str) -> str:
    """Runs it where kubectl and tuneproof are found."""
    here = f"{cluster.program.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    variables = {"PATH": here, "KUBECONFIG": str(cluster.kubeconfig)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, f"{script}: {done.stdout} {done.stderr}"
    return done.stdout


def test_there_are_ten_and_the_server_takes_what_they_make(
    cluster: Cluster, emptied: None, commands: list[str]
) -> None:
    assert commands[0] == "make images"
    assert len(commands) <= 10
    tried = [
        re.sub(r"kubectl (.*?)(create|apply -k|run)", r"kubectl \1\2 --dry-run=server", each)
        for each in commands[1:7]
    ]
    tried = [each.replace("-k --dry-run=server", "--dry-run=server -k") for each in tried]
    tried = [re.sub(r"^tar .* \| | --rm --stdin", "", each) for each in tried]
    assert sum("--dry-run" in each for each in tried) == 4
    script = "\n".join(tried)
    assert "Warning" not in shell(cluster, f"({script}) 2>&1")


if FULL:

    def test_they_lead_to_a_grade(
        cluster: Cluster, images: None, emptied: None, commands: list[str], tmp_path: Path
    ) -> None:
        build("retriever")
        load(cluster, IMAGE, tmp_path)
        *made, last = commands[1:]
        given = next(each for each in made if "TUNEPROOF_CONTEXT" in each)
        shell(cluster, "\n".join(made))
        end = time.monotonic() + SECONDS
        grades = 0
        while not grades:
            assert time.monotonic() < end
            time.sleep(2)
            asked = f"{given}\n{last} --state {tmp_path} --json || echo"
            if (out := shell(cluster, asked)).strip():
                stages = {each["stage"]: each["done"] for each in json.loads(out)["stages"]}
                grades = stages.get("grades", 0)
