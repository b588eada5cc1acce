"""The doctor's eyes: one function for each thing that is looked at."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from tuneproof.local.options import PREFERRED_PORTS

PYTHONS = ("3.11", "3.12", "3.13")
"""The versions for which every pinned package can be had."""

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


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: Literal["ok", "note", "warning", "missing"]
    """`note`: not there, and not needed; `missing`: needed to run the services here."""
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


def _python() -> Finding:
    version = platform.python_version()
    if version.rpartition(".")[0] in PYTHONS:
        return Finding("Python", "ok", version)
    return Finding(
        "Python",
        "warning",
        version,
        f"the pinned packages are for {', '.join(PYTHONS)}: make setup",
    )


def _packages() -> Iterator[Finding]:
    for service, packages in PACKAGES.items():
        lacking = [name for name in packages if find_spec(name) is None]
        what = f"packages of the {service}"
        if lacking:
            yield Finding(what, "missing", f"no {', '.join(lacking)}", "make setup")
        else:
            yield Finding(what, "ok", ", ".join(packages))


def _ports(state: Path) -> Iterator[Finding]:
    if (state / "services" / "ports.json").exists():
        return
    taken = [f"{port} ({name})" for name, port in PREFERRED_PORTS.items() if not _is_free(port)]
    if taken:
        yield Finding("ports", "note", f"taken: {', '.join(taken)}", "others are used instead")
    else:
        yield Finding("ports", "ok", "the preferred ones are free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _disk(state: Path) -> Finding:
    folder = next(path for path in [state.resolve(), *state.resolve().parents] if path.exists())
    free = shutil.disk_usage(folder).free
    detail = f"{free / 2**30:.0f} GiB free at {folder}"
    if free < _LEAST_DISK:
        return Finding("disk", "warning", detail, "free some, or give --state on another disk")
    return Finding("disk", "ok", detail)


def _memory() -> Finding:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kilobytes = next(int(each.split()[1]) for each in lines if each.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return Finding("memory", "note", "unknown on this system")
    available = kilobytes * 1024
    detail = f"{available / 2**30:.1f} GiB available"
    if available < _LEAST_MEMORY:
        return Finding("memory", "warning", detail, "the demo takes about 5 GiB")
    return Finding("memory", "ok", detail)


def _data() -> Finding:
    folder = os.environ.get("TUNEPROOF_DATA", "")
    if not folder:
        return Finding(
            "data", "note", "TUNEPROOF_DATA is not set", "set it to a folder with bioasq/"
        )
    if not Path(folder).is_dir():
        return Finding("data", "warning", f"TUNEPROOF_DATA={folder} is no folder", "correct it")
    names = sorted(path.name for path in Path(folder).iterdir() if path.is_dir())
    return Finding("data", "ok", f"{folder}: {', '.join(names)}")


def _tools() -> Iterator[Finding]:
    for name, advice in _TOOLS.items():
        found = shutil.which(name)
        if found:
            yield Finding(f"tool {name}", "ok", found)
        else:
            lacking: Literal["missing", "note"] = "missing" if name in _NEEDED_TOOLS else "note"
            yield Finding(f"tool {name}", lacking, "not found", advice)
