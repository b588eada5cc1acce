"""Every key of a study file, given what it cannot be: the message has its path and its line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from tuneproof.data import sources
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design import arms, models, spec
from tuneproof.study.design.specfile import STUDY_FILE

from .test_study_reference import BLOCKS, SECTIONS

pytestmark = pytest.mark.timeout(60)

Path = tuple[str | int, ...]
PLACES: dict[type[BaseModel], Path] = {
    spec.StudySpec: (),
    spec.SplitSpec: ("split",),
    spec.CorpusSpec: ("corpus",),
    spec.RetrievalSpec: ("retrieval",),
    spec.RerankSpec: ("retrieval", "rerank"),
    spec.PromptSpec: ("prompt",),
    spec.GenerationSpec: ("generation",),
    models.BaseSpec: ("models", 0),
    models.ServingSpec: ("models", 0, "serving"),
    models.ApiSpec: ("models", 1),
    arms.ArmSpec: ("arms", 1),
    arms.TuneSpec: ("arms", 1, "tune"),
    arms.RaftSpec: ("arms", 1, "tune", "raft"),
    arms.GridSpec: ("arms", 1, "tune", "hyperparameters"),
    arms.ExamplesSpec: ("arms", 2, "examples"),
    arms.ImportSpec: ("arms", 3, "import"),
    spec.TrainingSpec: ("training",),
    spec.Hyperparameters: ("training", "hyperparameters"),
    spec.JudgeSpec: ("judge",),
    spec.ComparisonSpec: ("comparison",),
    spec.PrimarySpec: ("comparison", "primary", 0),
    spec.ChecksSpec: ("checks",),
    spec.ReaderCheckSpec: ("checks", "reader"),
    spec.JudgeCheckSpec: ("checks", "judge"),
    spec.LengthCheckSpec: ("checks", "length"),
    spec.CostsSpec: ("costs",),
    spec.ForgettingSpec: ("forgetting",),
    spec.ServicesSpec: ("services",),
    spec.ExecutionSpec: ("execution",),
}
"""Where a file has each section; a data set's is `dataset`."""
WRONG = {"never": 1}
"""No key takes it but one that maps names to values."""


def keys() -> Iterator[tuple[str, str]]:
    """Each table of studies/README.md with its keys."""
    for heading, section in SECTIONS.items():
        if section is not sources.Source:
            for key in section.model_json_schema()["properties"]:
                if (heading, key) != ("`dataset.fields`", "metadata"):
                    yield heading, key


def place_of(heading: str) -> Path:
    section = SECTIONS[heading]
    if issubclass(section, sources.Source):
        return ("dataset",)
    return PLACES.get(section, ("dataset", "fields"))


def whole(heading: str) -> dict[str, Any]:
    """A study with every section, and the data set that a table is of."""
    found: dict[str, Any] = yaml.safe_load(BLOCKS[0])
    found["models"] = [
        {"name": "base", "model": "m"},
        {"name": "api", "url": "http://a/v1", "model": "m"},
    ]
    found["arms"] = [
        {"name": "baseline"},
        {"name": "tuned", "tune": {"references": "full", "raft": {}}},
        {"name": "shots", "examples": {"k": 1, "references": "full"}},
        {"name": "other", "import": {"path": "a.jsonl"}},
    ]
    found["comparison"]["primary"] = [{"arm": "tuned", "measure": "accuracy"}]
    if "dataset" in heading:
        name = heading.rpartition(" ")[2].strip("`")
        known = name if "." not in name else "jsonl"
        found["dataset"] = {"name": known}
    return found


def put(value: Any, path: Path, wrong: Any) -> None:
    *way, last = path
    for step in way:
        value = value[step] if isinstance(step, int) else value.setdefault(step, {})
    value[last] = wrong


def written(path: Path) -> str:
    """As messages name it."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def test_every_section_has_a_place() -> None:
    missing = {
        section
        for section in SECTIONS.values()
        if section not in PLACES and not issubclass(section, sources.Source)
    }
    assert [section.__name__ for section in missing] == ["ItemFields"]


@pytest.mark.parametrize(("heading", "key"), list(keys()))
def test_a_value_that_it_cannot_be_is_told_with_path_and_line(heading: str, key: str) -> None:
    path = (*place_of(heading), key)
    schema = SECTIONS[heading].model_json_schema()["properties"][key]
    study = whole(heading)
    put(study, path, "never" if schema.get("additionalProperties") else WRONG)
    # Lists and mappings without others in them stand on one line.
    text = yaml.safe_dump(study, default_flow_style=None, sort_keys=False, width=1000)
    (line,) = [number for number, each in enumerate(text.splitlines(), 1) if "never" in each]
    with pytest.raises(InvalidInput) as caught:
        STUDY_FILE.parse(text, "study.yaml")
    told = f"study.yaml:{line}: {written(path)}"
    if path == ("dataset", "name"):  # It decides what the other keys are: the section is wrong.
        told = f"study.yaml:{line - 1}: dataset: Input tag"
    mistakes = caught.value.message.splitlines()
    assert any(each.startswith(told) for each in mistakes), mistakes
