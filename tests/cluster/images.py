"""The images of deploy/images, built here by buildah and given to a cluster's node."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from urllib.parse import unquote, urlsplit

import pytest

from ..rendering import ROOT
from .cluster import Cluster

FOLDER = ROOT / "deploy/images"
INSTALLED = {
    "tuneproof/judge:0.1.0": "judge",
    "tuneproof/orchestrator:0.1.0": "orchestrator",
    "tuneproof/retriever:0.1.0-slim": "retriever-slim",
    "tuneproof/trainer:0.1.0": "trainer",
    "tuneproof/generator:0.1.0": "generator",
}
"""What the demo's installation runs, by name; each with its target of the Dockerfile."""
LARGE = ("tuneproof/trainer:0.1.0", "tuneproof/generator:0.1.0")
ALL = {**INSTALLED, "tuneproof/retriever:0.1.0": "retriever"}
BASE = "localhost/tuneproof-base:bookworm"
"""Made of Debian's packages: no registry answers where these tests run."""
SLOW = 1800
"""Seconds that the largest build may take where others use the machine too."""


@cache
def build(target: str) -> None:
    """Builds a target of the Dockerfile, once in a session; buildah keeps the layers."""
    if shutil.which("buildah") is None or shutil.which("mmdebstrap") is None:
        pytest.skip("needs the Debian packages buildah and mmdebstrap")
    known = ["buildah", "inspect", "--type", "image", BASE]
    if subprocess.run(known, capture_output=True, check=False).returncode:
        _run(FOLDER / "base.sh", BASE)
    configuration, mounts = pip_here()
    flags = ["--isolation chroot", "--network host", "--quiet"]
    flags += [f"--volume {each}:{each}:ro" for each in mounts]
    with NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(configuration)
        file.flush()
        settings = {"BASE": BASE, "IMAGES": target, "PIP_CONF": file.name}
        _run(FOLDER / "build.sh", **settings, BUILD_FLAGS=" ".join(flags))


def load(cluster: Cluster, name: str, folder: Path) -> None:
    """Gives a cluster's node an image, through a pipe: archives of them take gigabytes."""
    pipe = folder / f"{name.replace('/', '-').replace(':', '-')}.tar"
    os.mkfifo(pipe)
    target = f"docker-archive:{pipe}:docker.io/{name}"
    pushed = ["buildah", "push", "--quiet", "--disable-compression", f"localhost/{name}", target]
    with subprocess.Popen(pushed, stdout=subprocess.DEVNULL) as pushing:
        try:
            cluster.load(pipe)
        except BaseException:
            pushing.kill()  # It may wait for who reads the pipe.
            raise
    assert pushing.returncode == 0
    pipe.unlink()


def pip_here() -> tuple[str, list[Path]]:
    """How pip is configured on this machine, as one file, and what it names of the machine."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # Variables, which are listed first, go before files.
    found: dict[str, str] = {}
    for key, value in re.findall(r"^[\w:]+\.([\w-]+)='(.*)'$", listed, re.MULTILINE):
        found.setdefault(key, value.replace(r"\n", " ").strip())
    lines = [f"{key} = {value}\n" for key, value in found.items()]
    return "[global]\n" + "".join(lines), sorted(_named(" ".join(found.values())))


def _named(values: str) -> set[Path]:
    """Folders of this machine in pip's settings. An index links to the files beside it."""
    folders = set()
    for each in values.split():
        path = Path(unquote(urlsplit(each).path))
        if each.startswith(("/", "file://")) and path.exists():
            folders.add(path if path.is_dir() and each.startswith("/") else path.parent)
    return folders


def _run(*command: str | Path, **variables: str) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=SLOW,
        env=os.environ | variables,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
