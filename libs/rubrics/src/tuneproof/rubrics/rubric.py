"""One rubric and its file."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from tuneproof.rubrics.forms import Reasoning, standard_form
from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.yamlfile import FileKind

PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
FROM_RUBRIC = frozenset({"criterion", "description", "scale", "low", "high", "steps", "form"})
FROM_REQUEST = frozenset({"question", "reference", "answer", "passages", "fence"})
HIGHEST = 100
"""No scale goes further."""

_ID = r"^[a-z][a-z0-9-]{0,62}@[1-9][0-9]{0,5}$"
_SHOWN_ONLY = frozenset({"stated_low", "stated_high", "unit", "decimals", "stated_form"})
"""Fields that change no score; the scale holds both ends of the range, and a form counts where the
template has a place for it."""


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank")
    return text


_Text = Annotated[str, AfterValidator(_not_blank)]
_Score = Annotated[int, Field(ge=0, le=HIGHEST)]


class Rubric(BaseModel):
    """One rubric, checked.

    As a measure it is called `criterion`, goes from `low` to `high` in `unit`, and its means are
    shown with `decimals`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=_ID)
    """`<name>@<version>`."""
    criterion: _Text
    """One word or two, as `accuracy`: the name of the column in a report."""
    description: _Text
    """What the criterion asks."""
    stated_low: _Score | None = Field(None, alias="low")
    """In a file `low`; see `scale`."""
    stated_high: _Score | None = Field(None, alias="high")
    """In a file `high`; see `scale`."""
    scale: dict[int, _Text]
    """What scores mean, by score, in ascending order: every score from the lowest to the highest,
    or, where `low` and `high` state the range, these two and any between them."""
    unit: _Text = Field("points", max_length=20)
    """What scores and their differences are counted in."""
    decimals: int = Field(2, ge=0, le=6)
    """Digits after the point of a mean score."""
    steps: tuple[_Text, ...] = Field(min_length=1)
    """How to get from the answer to the score."""
    reasoning: Reasoning = "before"
    """Where the chain of thought goes: before the score, after it, or nowhere."""
    stated_form: _Text | None = Field(None, alias="form")
    """In a file `form`; see the property."""
    template: _Text
    """The user message; `{{name}}` stands for a value (`FROM_RUBRIC`, `FROM_REQUEST`)."""
    max_tokens: int = Field(400, ge=1, le=32768)
    """Longest completion in tokens."""

    @field_validator("scale")
    @classmethod
    def _anchors_its_range(cls, scale: dict[int, str], info: ValidationInfo) -> dict[int, str]:
        if len(scale) < 2:
            raise ValueError("needs two scores or more")
        if min(scale) < 0 or max(scale) > HIGHEST:
            raise ValueError(f"scores are whole numbers from 0 to {HIGHEST}")
        if not {"stated_low", "stated_high"} <= info.data.keys():
            return scale  # The range itself is wrong, which has its own message.
        stated = info.data["stated_low"], info.data["stated_high"]
        low, high = (min(scale), max(scale)) if None in stated else stated
        outside = sorted(score for score in scale if not low <= score <= high)
        if outside:
            raise ValueError(f"has {_listed(outside)}, which is outside {low} to {high}")
        needed = range(low, high + 1) if None in stated else (low, high)
        missing = sorted({*needed, *(end for end in stated if end is not None)} - set(scale))
        if missing:
            raise ValueError(f"lacks an anchor for {_listed(missing)}")
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

    @field_validator("stated_form")
    @classmethod
    def _asks_for_a_score(cls, form: str | None) -> str | None:
        if form is not None and "Score:" not in form:
            raise ValueError("lacks `Score:`, by which a completion is read")
        return form

    @property
    def form(self) -> str:
        """What `{{form}}` stands for: how a completion must look. The standard one of where the
        reasons go, unless the file has its own."""
        return self.stated_form or standard_form(self.reasoning, self.low, self.high)

    @property
    def low(self) -> int:
        """The lowest score."""
        return min(self.scale)

    @property
    def high(self) -> int:
        """The highest score."""
        return max(self.scale)

    @property
    def scores(self) -> range:
        """All scores that can be given."""
        return range(self.low, self.high + 1)

    @cached_property
    def placeholders(self) -> frozenset[str]:
        """The names that the template uses."""
        return frozenset(PLACEHOLDER.findall(self.template))

    @cached_property
    def digest(self) -> str:
        """`sha256:<hex>` over the canonical JSON of all fields that can change a score."""
        content = self.model_dump(mode="json", exclude=set(_SHOWN_ONLY))
        if "form" in self.placeholders:
            content["form"] = self.form
        return sha256_of_json(content)


_RUBRIC_FILE = FileKind(
    Rubric,
    noun="a rubric file",
    expected="a rubric: `id: <name>@<version>` and its parts",
    patterns={_ID: "expected a name and a version such as accuracy@1"},
)


def parse_rubric(content: bytes, source: str) -> Rubric:
    """Reads one rubric file.

    Args:
        source: the file's name for messages.

    Raises:
        InvalidInput: with all that is wrong with it, each mistake with its line.
    """
    return _RUBRIC_FILE.parse(content, source)


def _listed(scores: list[int]) -> str:
    return ", ".join(map(str, scores))
