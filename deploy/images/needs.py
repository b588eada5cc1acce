"""Writes what each image installs: FOLDER IMAGE=DISTRIBUTION[EXTRAS]...

FOLDER/IMAGE/ours.txt names our distributions, needs.txt the packages of others that these ask for.
FOLDER/shared/needs.txt is what both trainer and generator ask for.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

LIBRARIES = Path("libs")
SHARED = ("trainer", "generator")


def needed(folder: Path, extras: set[str]) -> tuple[set[str], set[str]]:
    """Names of our distributions, and requirements of others, for one of ours."""
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    ours, others = {project["name"]}, set()
    optional = project.get("optional-dependencies", {})
    for each in [*project["dependencies"], *(one for extra in extras for one in optional[extra])]:
        name, more = parsed(each)
        if name.startswith("tuneproof-"):
            below = needed(LIBRARIES / name.removeprefix("tuneproof-"), more)
            ours, others = ours | below[0], others | below[1]
        else:
            others.add(each)
    return ours, others


def parsed(requirement: str) -> tuple[str, set[str]]:
    """The name and the extras of `name[extra,…]`."""
    found = re.fullmatch(r"([\w./-]+)(?:\[([\w,-]+)\])?", requirement)
    if not found:
        raise SystemExit(f"{requirement}: a name and extras are expected; versions are constraints")
    return found[1], set((found[2] or "").split(",")) - {""}


def main(out: str, *images: str) -> None:
    lists: dict[str, set[str]] = {}
    for image in images:
        name, _, wanted = image.partition("=")
        folder, extras = parsed(wanted)
        ours, lists[name] = needed(Path(folder), extras)
        write(Path(out, name, "ours.txt"), ours)
    lists["shared"] = set.intersection(*(lists[name] for name in SHARED))
    for name, others in lists.items():
        write(Path(out, name, "needs.txt"), others)


def write(path: Path, lines: set[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in sorted(lines)), "utf-8")


main(*sys.argv[1:])
