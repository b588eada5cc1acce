"""studies/README.md against the study file's own definition: nothing missing, nothing stale."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from tuneproof.data import sources
from tuneproof.data.loaders.own import ItemFields
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design import arms, models, spec
from tuneproof.study.design.specfile import STUDY_FILE

TEXT = (Path(__file__).parents[1] / "studies/README.md").read_text("utf-8")
SECTIONS: dict[str, type[BaseModel]] = {
    "The file": spec.StudySpec,
    "`dataset`": sources.Source,
    "`dataset`: telecom": sources.TelecomData,
    "`dataset`: bioasq": sources.BioasqData,
    "`dataset`: natural-questions": sources.NaturalQuestionsData,
    "`dataset`: nq-open": sources.NqOpenData,
    "`dataset`: qasper": sources.QasperData,
    "`dataset`: teleqna": sources.TeleqnaData,
    "`dataset`: jsonl": sources.JsonlData,
    "`dataset`: csv": sources.CsvData,
    "`dataset`: huggingface": sources.HuggingFaceData,
    "`dataset.fields`": ItemFields,
    "`split`": spec.SplitSpec,
    "`corpus`": spec.CorpusSpec,
    "`retrieval`": spec.RetrievalSpec,
    "`retrieval.rerank`": spec.RerankSpec,
    "`prompt`": spec.PromptSpec,
    "`generation`": spec.GenerationSpec,
    "`models`": models.BaseSpec,
    "`models`: API": models.ApiSpec,
    "`models.serving`": models.ServingSpec,
    "`arms`": arms.ArmSpec,
    "`arms.tune`": arms.TuneSpec,
    "`arms.tune.raft`": arms.RaftSpec,
    "`arms.tune.hyperparameters`": arms.GridSpec,
    "`arms.examples`": arms.ExamplesSpec,
    "`arms.import`": arms.ImportSpec,
    "`training`": spec.TrainingSpec,
    "`training.hyperparameters`": spec.Hyperparameters,
    "`judge`": spec.JudgeSpec,
    "`comparison`": spec.ComparisonSpec,
    "`comparison.primary`": spec.PrimarySpec,
    "`checks`": spec.ChecksSpec,
    "`checks.reader`": spec.ReaderCheckSpec,
    "`checks.judge`": spec.JudgeCheckSpec,
    "`checks.length`": spec.LengthCheckSpec,
    "`costs`": spec.CostsSpec,
    "`forgetting`": spec.ForgettingSpec,
    "`services`": spec.ServicesSpec,
    "`execution`": spec.ExecutionSpec,
}
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
"""The smallest study, models and arms of every kind."""
PATTERNS = {
    sources.NAME_PATTERN: "name",
    spec.RUBRIC_PATTERN: "rubric",
    models.ADDRESS_PATTERN: "address",
    models.URL_PATTERN: "URL",
    models.VARIABLE_PATTERN: "variable",
}
KINDS = {"integer": "whole number", "number": "number", "string": "text"}

pytestmark = pytest.mark.timeout(30)

Schema = dict[str, Any]


def rows(heading: str) -> dict[str, tuple[str, str, str]]:
    """Type, default and meaning by key, of the table under a heading."""
    part = TEXT.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in part.splitlines()
        if line.startswith("| `")
    ]
    return {key.strip("` |"): (kind, default, meaning) for key, kind, default, meaning in cells}


def kind_of(schema: Schema) -> str:
    """What a value is, in the words of the tables."""
    if "anyOf" in schema:
        (other,) = [each for each in schema["anyOf"] if each.get("type") != "null"]
        return kind_of(other)
    if "$ref" in schema or "oneOf" in schema:
        return "section"
    if "const" in schema or "enum" in schema:
        words = [f"`{word}`" for word in schema.get("enum", [schema.get("const")])]
        return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)
    if schema["type"] == "boolean":
        return "`true` or `false`"
    if schema["type"] in ("array", "object"):
        return collection_of(schema)
    special = PATTERNS.get(schema.get("pattern", ""), schema.get("format", ""))
    word = special or KINDS[schema["type"]]
    return ", ".join([word, *bounds_of(schema)])


def collection_of(schema: Schema) -> str:
    is_list = schema["type"] == "array"
    one, *bounds = kind_of(schema["items" if is_list else "additionalProperties"]).split(", ")
    least = schema.get("minItems" if is_list else "minProperties")
    of_them = [] if not least else [f"{least} or more" + ("" if one == "section" else " of them")]
    several = one.replace("list of", "lists of") if one.startswith("list of") else f"{one}s"
    return ", ".join([f"{'list of' if is_list else 'mapping to'} {several}", *bounds, *of_them])


def bounds_of(schema: Schema) -> list[str]:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return [f"{low} to {high}"]
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    found = [f"{low} or more"] if low is not None else []
    found += [f"above {above:g}"] if above is not None else []
    found += [f"{high:g} or less"] if high is not None else []
    return found + ([f"below {below:g}"] if below is not None else [])


def default_of(schema: Schema, *, required: bool) -> str:
    """What holds where the key is left out, in the words of the tables."""
    value = schema.get("default")
    if required:
        return "required"
    if "$ref" in schema:
        return "its defaults"
    if value is None:
        return "absent"
    if value == "":
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"{value:g}" if isinstance(value, int | float) else f"`{value}`"


def test_every_section_of_the_file_has_a_table() -> None:
    data_sets = {sources.Source, *get_args(get_args(sources.DataSource)[0])}
    sections = {*arms.Section.__subclasses__(), *data_sets, ItemFields, spec.Hyperparameters}
    assert set(SECTIONS.values()) == sections
    headings = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    assert headings == list(SECTIONS)


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_has_its_type_default_and_meaning(heading: str) -> None:
    section = SECTIONS[heading]
    shared = set() if section is sources.Source else set(sources.Source.model_fields)
    schema = section.model_json_schema()
    required = schema.get("required", [])
    expected = {
        key: (kind_of(value), default_of(value, required=key in required))
        for key, value in schema["properties"].items()
        if not issubclass(section, sources.Source) or key not in shared
    }
    found = rows(heading)
    assert {key: row[:2] for key, row in found.items()} == expected
    assert all(meaning.endswith(".") for *_, meaning in found.values())


def test_the_smallest_study_is_one_and_none_of_it_can_be_left_out() -> None:
    block, *_ = BLOCKS
    STUDY_FILE.parse(block, "smallest")
    whole = yaml.safe_load(block)
    for key in set(whole) - {"services"}:
        less = yaml.safe_dump({name: value for name, value in whole.items() if name != key})
        with pytest.raises(InvalidInput, match=key):
            STUDY_FILE.parse(less, "less")


def test_arms_of_every_kind_are_a_study() -> None:
    smallest, models_of, kinds = map(yaml.safe_load, BLOCKS)
    del smallest["services"]
    found = STUDY_FILE.parse(yaml.safe_dump({**smallest, **models_of, **kinds}), "kinds")
    assert len(found.arms) == 10
    assert [model.name for model in found.bases] == ["mistral", "llama"]
    assert [model.name for model in found.apis] == ["gpt-4"]


def test_what_the_word_for_nothing_means_is_true() -> None:
    block, *_ = BLOCKS
    value = yaml.safe_load(block)
    plain = STUDY_FILE.parse(block, "plain")
    value["judge"] = "none"
    assert STUDY_FILE.parse(yaml.safe_dump(value), "said") == plain
