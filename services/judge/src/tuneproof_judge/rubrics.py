"""Rubrics: what is judged, by which scale and steps, and the prompt that asks for it.

A rubric is a YAML file. Its id carries its version; its digest says what it was in earnest, and
is part of every grade.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import InvalidInput, NotFound

PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
FROM_RUBRIC = frozenset({"criterion", "description", "scale", "steps"})
FROM_REQUEST = frozenset({"question", "reference", "answer", "passages", "fence"})
_SUFFIXES = (".yaml", ".yml")


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank")
    return text


_Text = Annotated[str, AfterValidator(_not_blank)]


class Rubric(BaseModel):
    """One rubric, checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}@[1-9][0-9]{0,5}$")
    """`<name>@<version>`."""
    criterion: _Text
    """One word or two, as `accuracy`: the name of the column in a report."""
    description: _Text
    """What the criterion asks."""
    scale: dict[int, _Text]
    """What each score means, by score; without gaps."""
    steps: tuple[_Text, ...] = Field(min_length=1)
    """How to get from the answer to the score."""
    reasoning: Literal["before"] = "before"
    """Where the chain of thought stands. The form is the completion's end."""
    template: _Text
    """The user message, with `{{name}}` for what is put in (`FROM_RUBRIC`, `FROM_REQUEST`)."""
    max_tokens: int = Field(400, ge=1, le=32768)
    """Longest completion in tokens."""

    @field_validator("scale")
    @classmethod
    def _has_no_gap(cls, scale: dict[int, str]) -> dict[int, str]:
        if len(scale) < 2:
            raise ValueError("needs two scores or more")
        if min(scale) < 0 or max(scale) > 100:
            raise ValueError("scores are whole numbers from 0 to 100")
        missing = sorted(set(range(min(scale), max(scale) + 1)) - set(scale))
        if missing:
            raise ValueError(f"lacks an anchor for {', '.join(map(str, missing))}")
        return dict(sorted(scale.items()))

    @field_validator("template")
    @classmethod
    def _names_what_is_there(cls, template: str) -> str:
        used = set(PLACEHOLDER.findall(template))
        unknown = sorted(used - FROM_RUBRIC - FROM_REQUEST)
        if unknown:
            known = ", ".join(sorted(FROM_RUBRIC | FROM_REQUEST))
            raise ValueError(f"names {', '.join(unknown)}, which is not one of {known}")
        if "answer" not in used:
            raise ValueError("lacks {{answer}}, so it would judge nothing")
        return template

    @cached_property
    def placeholders(self) -> frozenset[str]:
        """The names that the template uses."""
        return frozenset(PLACEHOLDER.findall(self.template))

    @cached_property
    def digest(self) -> str:
        """`sha256:<hex>` over the canonical JSON of all fields."""
        return sha256_of_json(self.model_dump(mode="json"))


class RubricShelf:
    """The rubrics that a judge knows."""

    def __init__(self, rubrics: Sequence[Rubric]) -> None:
        self._by_id = {rubric.id: rubric for rubric in sorted(rubrics, key=lambda each: each.id)}

    @classmethod
    def load(cls, folder: Path | None = None) -> RubricShelf:
        """The built-in rubrics and those of a folder's YAML files.

        Raises:
            InvalidInput: naming file and field; for an id that two files use, both files.
        """
        found: dict[str, tuple[Rubric, str]] = {}
        sources = list(_yaml_files(files("tuneproof_judge") / "builtin"))
        if folder is not None:
            if not folder.is_dir():
                raise InvalidInput(f"the rubrics folder {folder} is no folder; see --rubrics")
            sources += _yaml_files(folder)
        for source in sources:
            rubric = parse_rubric(source.read_bytes(), str(source))
            if rubric.id in found:
                raise InvalidInput(
                    f"{source} and {found[rubric.id][1]} both define {rubric.id};"
                    " give one of them another name or version"
                )
            found[rubric.id] = rubric, str(source)
        return cls([rubric for rubric, _ in found.values()])

    def __iter__(self) -> Iterator[Rubric]:
        """By id."""
        return iter(self._by_id.values())

    def get(self, rubric_id: str) -> Rubric:
        """A rubric by its id.

        Raises:
            NotFound: listing the ids that exist.
        """
        if rubric_id not in self._by_id:
            raise NotFound(
                f"there is no rubric {rubric_id[:100]!r}; there are {', '.join(self._by_id)}"
            )
        return self._by_id[rubric_id]


def parse_rubric(content: bytes, source: str) -> Rubric:
    """Reads one rubric file.

    Args:
        source: the file's name for messages.

    Raises:
        InvalidInput: with all that is wrong with it.
    """
    try:
        tree = yaml.compose(content, Loader=yaml.SafeLoader)
        _refuse_repeated_keys(tree)
        value = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidInput(f"rubric file {source} is not YAML: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"rubric file {source} holds no mapping of fields")
    try:
        return Rubric.model_validate(value)
    except ValidationError as error:
        mistakes = "; ".join(
            f"{'.'.join(map(str, mistake['loc']))}: {mistake['msg'].removeprefix('Value error, ')}"
            for mistake in error.errors()
        )
        raise InvalidInput(f"rubric file {source}: {mistakes}") from None


def _yaml_files(folder: Traversable) -> Iterator[Traversable]:
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        if entry.name.endswith(_SUFFIXES) and not entry.name.startswith("."):
            yield entry


def _refuse_repeated_keys(node: yaml.Node | None) -> None:
    # PyYAML keeps the last of two equal keys in silence: an anchor would be lost.
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise ValueError(f"the key {key.value!r} in line {key.start_mark.line + 1} repeats")
            seen.add(key.value)
            _refuse_repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_repeated_keys(value)
