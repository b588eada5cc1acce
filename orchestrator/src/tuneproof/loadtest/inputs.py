"""The files that a user gives, one thing a line: prompts, probes, references."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from tuneproof.loadtest.truth import Probe, Probes
from tuneproof.servicekit.errors import InvalidInput

T = TypeVar("T")


def read_prompts(path: Path) -> tuple[str, ...]:
    """Prompts of a file; `\\n` within a line stands for a line end.

    Raises:
        InvalidInput: the file cannot be read, or is empty.
    """
    return read_lines(path, "prompt", lambda line: line.replace("\\n", "\n"))


def read_probes(path: Path) -> Probes:
    """Probes of a file: JSON objects of `adapter`, `expect`, and `prompt` or none.

    Raises:
        InvalidInput: names every line that is not a probe.
    """
    return Probes(read_lines(path, "probe", lambda line: _probe(json.loads(line))))


def read_references(path: Path) -> tuple[str, ...]:
    """References of a file, `name@sha256:…`.

    Raises:
        InvalidInput: names every line that is not a reference.
    """
    return read_lines(path, "reference", _reference)


def read_lines(path: Path, what: str, parse: Callable[[str], T]) -> tuple[T, ...]:
    """All lines but the blank ones, parsed.

    Args:
        what: what a line holds.
        parse: raises ValueError for a line that is none.

    Raises:
        InvalidInput: names every such line.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read the {what}s of {path}: {error}") from None
    found: list[T] = []
    mistakes: list[str] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(parse(line))
            except (ValueError, re.error) as error:
                mistakes.append(f"{path}:{number}: {error}")
    if not found and not mistakes:
        mistakes.append(f"{path} is empty: write one {what} a line")
    if mistakes:
        raise InvalidInput("\n".join(mistakes))
    return tuple(found)


def _reference(line: str) -> str:
    if "@sha256:" not in line:
        raise ValueError(f"{line.strip()!r} is not a reference name@sha256:…")
    return line.strip()


def _probe(value: object) -> Probe:
    if not isinstance(value, Mapping):
        raise ValueError("is not a JSON object")  # noqa: TRY004 - a mistake in a file
    if unknown := set(value) - {"adapter", "prompt", "expect"}:
        raise ValueError(f"has the unknown keys {', '.join(sorted(unknown))}")
    for key in ("adapter", "expect"):
        if not isinstance(value.get(key), str) or not value[key]:
            raise ValueError(f"needs a text under {key!r}")
    prompt = value.get("prompt")
    if prompt is not None and not isinstance(prompt, str):
        raise ValueError("has a prompt that is not a text")
    return Probe(value["adapter"], prompt, re.compile(value["expect"], re.DOTALL))
