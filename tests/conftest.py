"""What several tests here share: the four real service processes with the demo's model, kubectl."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from .programs import unpack
from .rendering import EVERYTHING, OVERLAYS, Built, build, together

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "tuneproof.cli.main"]


def tuneproof(*arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=ROOT,
    )


@dataclass(frozen=True)
class Running:
    """Services that run."""

    state: Path
    study: Path
    addresses: dict[str, dict[str, str]]


def small_study(folder: Path) -> Path:
    """The demo's study, made so small that it takes seconds."""
    spec = yaml.safe_load((ROOT / "studies" / "demo.yaml").read_text())
    spec["study"] = "small"
    spec["dataset"]["documents"] = 60
    spec["split"]["test_items"] = 24
    kept = {"baseline", "short-references", "full-references"}
    spec["arms"] = [arm for arm in spec["arms"] if arm["name"] in kept]
    spec["training"]["sizes"] = [48]
    spec["training"]["hyperparameters"]["epochs"] = 1
    spec["judge"]["repeats"] = 3
    spec["checks"] = {"reader": {"facts": 12, "items": 10}, "judge": {"forms": 20}}
    spec["services"]["model"] = str(ROOT / "demo" / "telecom-reader")
    spec["services"]["rubrics"] = str(ROOT / "demo" / "rubrics")
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("e2e")
    study, state = small_study(folder), folder / "state"
    up = tuneproof("up", str(study), "--state", str(state), "--detach", "--json")
    try:
        assert up.returncode == 0, up.stderr
        yield Running(state, study, json.loads(up.stdout))
    finally:
        tuneproof("down", "--state", str(state))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data sets."""
    folder = os.environ.get("TUNEPROOF_DATA")
    if not folder:
        pytest.skip(
            "TUNEPROOF_DATA is not set: it names a folder with bioasq/12B1_golden.json, from"
            " BioASQ's participants area (Task 12b golden enriched test batches)"
        )
    return Path(folder)


@pytest.fixture(scope="session")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tools = os.environ.get("TUNEPROOF_TOOLS")
    if not tools:
        pytest.skip(
            "needs kubectl: set TUNEPROOF_TOOLS to a folder with kubernetes/hyperkube.xz, the one"
            " binary of Kubernetes that holds it (.ci/run sets it)"
        )
    target = tmp_path_factory.mktemp("kubectl") / "kubectl"
    unpack(Path(tools) / "kubernetes/hyperkube.xz", target)
    return target


@pytest.fixture(scope="session")
def built(kubectl: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The manifests of each overlay by its name, and of the components together."""
    found = {overlay.name: build(kubectl, overlay) for overlay in OVERLAYS}
    everything = together(kubectl, tmp_path_factory.mktemp("everything"), EVERYTHING)
    return found | {"everything": everything}
