"""CONTRIBUTING.md sends people to files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
ROWS = [
    line.strip("| ").split(" | ", 1)
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith("| to change")
]
FILE = re.compile(r"`([\w./-]+\.(?:py|md|j2|ya?ml|toml|proto|json))`")
HOMES = {
    "orchestrator": "orchestrator/src/tuneproof",
    **{
        name: f"services/{name}/src/tuneproof_{name}"
        for name in ("generator", "judge", "retriever", "trainer")
    },
    **{name: f"libs/{name}/src/tuneproof/{name}" for name in ("servicekit", "adapters", "rubrics")},
}


def place_of(named: str) -> Path:
    first, _, rest = named.partition("/")
    return ROOT / HOMES.get(first, first) / rest


def test_it_answers_many_questions_and_each_names_a_file() -> None:
    assert len(ROWS) >= 25
    assert all(FILE.search(places) for _, places in ROWS)


@pytest.mark.parametrize("named", sorted(set(FILE.findall(TEXT))))
def test_every_file_that_it_names_exists(named: str) -> None:
    assert place_of(named).is_file()


@pytest.mark.parametrize("package", ["study", "study/design", "study/steps", "study/state"])
def test_every_module_of_the_study_is_in_its_packages_picture(package: str) -> None:
    folder = ROOT / HOMES["orchestrator"] / package
    picture = (folder / "__init__.py").read_text("utf-8")
    modules = [path.stem for path in folder.glob("[!_]*.py")]
    assert [name for name in modules if not re.search(rf"\b{name}\b", picture)] == []
