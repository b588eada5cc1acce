"""What the doctor examines, one function each."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import psutil

from tuneproof.local import processes
from tuneproof.local.options import PREFERRED_PORTS

PYTHONS = ("3.11", "3.12", "3.13")
"""The versions for which every pinned package is available."""

PACKAGES = {
    "retriever": ("tuneproof_retriever", "lancedb", "sentence_transformers"),
    "generator": ("tuneproof_generator", "vllm", "transformers"),
    "trainer": ("tuneproof_trainer", "trl", "peft", "bitsandbytes"),
    "judge": ("tuneproof_judge", "openai", "rouge_score"),
}
"""What each service imports, by service."""

_TOOLS = {
    "make": "apt-get install make",
    "cc": "apt-get install gcc: vLLM compiles parts of itself at its first start",
    "git": "apt-get install git",
    "docker": "apt-get install docker.io; only for images",
    "kubectl": "kubernetes.io/docs/tasks/tools; only for clusters",
}
_NEEDED_TOOLS = frozenset({"make", "cc"})
_LEAST_DISK = 10 * 2**30
_LEAST_MEMORY = 6 * 2**30

State = Literal["ok", "note", "warning", "missing"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What the doctor found out about one thing."""

    what: str
    state: State
    """`note`: absent, and not needed; `missing`: absent, and the services here need it."""
    detail: str
    advice: str = ""
    """What to do about it."""


def findings(state: Path) -> Iterator[Finding]:
    """Everything but the services."""
    yield _python()
    yield from _packages()
    yield from _ports(state)
    yield _disk(state)
    yield _memory()
    yield _data()
    yield from _tools()


def checked(
    what: str, fine: bool, detail: str, advice: str, *, otherwise: State = "warning"
) -> Finding:
    """A finding whose advice is given only where something is wrong."""
    return Finding(what, "ok", detail) if fine else Finding(what, otherwise, detail, advice)


def _python() -> Finding:
    version = platform.python_version()
    advice = f"the pinned packages are for {', '.join(PYTHONS)}: make setup"
    return checked("Python", version.rpartition(".")[0] in PYTHONS, version, advice)


def _packages() -> Iterator[Finding]:
    for service, packages in PACKAGES.items():
        absent = [name for name in packages if find_spec(name) is None]
        detail = f"without {', '.join(absent)}" if absent else ", ".join(packages)
        what = f"packages of the {service}"
        yield checked(what, not absent, detail, "make setup", otherwise="missing")


def _ports(state: Path) -> Iterator[Finding]:
    if (state / "services" / "ports.json").exists():
        return
    ports = PREFERRED_PORTS.items()
    taken = [f"{port} ({name})" for name, port in ports if not processes.is_free(port)]
    detail = f"taken: {', '.join(taken)}" if taken else "the preferred ones are free"
    yield checked("ports", not taken, detail, "others are used instead", otherwise="note")


def _disk(state: Path) -> Finding:
    folder = next(path for path in [state.resolve(), *state.resolve().parents] if path.exists())
    free = shutil.disk_usage(folder).free
    detail = f"{free / 2**30:.0f} GiB free at {folder}"
    return checked("disk", free >= _LEAST_DISK, detail, "free some, or name another disk: --state")


def _memory() -> Finding:
    available = psutil.virtual_memory().available
    detail = f"{available / 2**30:.1f} GiB available"
    return checked("memory", available >= _LEAST_MEMORY, detail, "the demo takes about 5 GiB")


def _data() -> Finding:
    folder = os.environ.get("TUNEPROOF_DATA", "")
    if not folder:
        advice = "set it to a folder with bioasq/"
        return Finding("data", "note", "TUNEPROOF_DATA is not set", advice)
    if not Path(folder).is_dir():
        return Finding("data", "warning", f"TUNEPROOF_DATA={folder} is not a folder", "correct it")
    names = sorted(path.name for path in Path(folder).iterdir() if path.is_dir())
    return Finding("data", "ok", f"{folder}: {', '.join(names)}")


def _tools() -> Iterator[Finding]:
    for name, advice in _TOOLS.items():
        found = shutil.which(name)
        otherwise: State = "missing" if name in _NEEDED_TOOLS else "note"
        yield checked(
            f"tool {name}", bool(found), found or "not found", advice, otherwise=otherwise
        )
