"""The file of a sweep: what is trained, what varies, and how long it may take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, ValidationError, model_validator

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.servicekit.yamlfile import FileKind, Mistake

LONGEST_NAME = 40
_FIXED = {
    "validation_share": "all trials validate on the same examples",
    "validation_steps": "all trials validate at the same steps",
    "preset": "name its values instead",
}
"""Hyper-parameters that do not vary, and why."""


class Range(BaseModel, frozen=True, extra="forbid"):
    """Numbers between two bounds, of which Optuna chooses."""

    low: float
    high: float
    log: bool = False
    """Spreads the choices over the orders of magnitude."""

    @model_validator(mode="after")
    def _in_order(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError("with log, low must be above 0")
        return self


class Budget(BaseModel, frozen=True, extra="forbid"):
    """When the sweep starts no further trial; what is absent sets no limit."""

    trials: int | None = Field(default=None, ge=1)
    hours: float | None = Field(default=None, gt=0)
    """Of training, all trials together."""


Choices = Annotated[tuple[Any, ...], Field(min_length=1)]


class SweepSpec(BaseModel, frozen=True, extra="forbid"):
    """A sweep."""

    sweep: Annotated[str, StringConstraints(pattern=rf"^[a-z][a-z0-9-]{{0,{LONGEST_NAME - 1}}}$")]
    """Begins the ids of its runs."""
    data: str
    """A file beside this one, or PATH@sha256:… of one in the artifact store."""
    validation: str = ""
    """A file that only validates, instead of a share of the data."""
    held_out: str = ""
    """What no trial may train or validate on, such as a study's test items."""
    adapter: str
    """Name of every trial's adapter; their digests differ."""
    base_model: str = ""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of every training, and of Optuna's choices."""
    hyperparameters: Hyperparameters = Hyperparameters()
    """Of all trials."""
    search: dict[str, Choices | Range] = Field(min_length=1)
    """Hyper-parameters that vary: values by name, or for Optuna a range."""
    method: Literal["grid", "optuna"] = "grid"
    budget: Budget = Budget()
    at_once: int = Field(default=1, ge=1, le=64)
    """Trials that the trainer has at the same time."""

    def at(self, point: Mapping[str, Any]) -> Hyperparameters:
        """The hyper-parameters of a point.

        Raises:
            ValidationError: they contradict one another.
        """
        shared = self.hyperparameters.model_dump(exclude_unset=True)
        return Hyperparameters.model_validate(shared | dict(point))

    def _choices(self, name: str) -> Choices:
        asked = self.search[name]
        return () if isinstance(asked, Range) else asked

    def values(self, name: str) -> tuple[Any, ...]:
        """The values of a hyper-parameter that varies, each in its type: YAML reads 1e-4 as text.

        Raises:
            ValidationError: one of them breaks its bounds.
        """
        return tuple(getattr(self.at({name: each}), name) for each in self._choices(name))


def contradictions(spec: SweepSpec) -> Iterator[Mistake]:
    """What no key shows alone."""
    if not spec.hyperparameters.validation_share and not spec.validation:
        advice = "a sweep chooses by the validation loss, so part of the data must validate"
        yield ("hyperparameters",), f"validation_share is 0: {advice}, such as 0.1"
    for name, asked in spec.search.items():
        place = ("search", name)
        if name not in Hyperparameters.model_fields:
            yield place, "is not a hyper-parameter"
        elif name in _FIXED:
            yield place, f"cannot vary: {_FIXED[name]}"
        elif isinstance(asked, Range):
            yield from ((place, text) for text in _range_mistakes(spec, name, asked))
        else:
            for value in asked:
                yield from ((place, text) for text in _value_mistakes(spec, name, value))
    if spec.method == "optuna" and spec.budget == Budget():
        yield ("budget",), "is empty: Optuna ends at a number of trials or hours"


def _range_mistakes(spec: SweepSpec, name: str, asked: Range) -> Iterator[str]:
    if spec.method == "grid":
        yield "is a range; a grid needs values, as [8, 16, 64], or `method: optuna`"
    elif Hyperparameters.model_fields[name].annotation not in (int, float):
        yield "is not a number; give values, as [constant, cosine]"
    else:
        for end in (asked.low, asked.high):
            yield from _value_mistakes(spec, name, as_number(name, end))


def _value_mistakes(spec: SweepSpec, name: str, value: Any) -> Iterator[str]:
    try:
        spec.at({name: value})
    except ValidationError as error:
        for each in error.errors(include_url=False):
            yield f"{each['msg'].removeprefix('Value error, ')}, got {value!r}"


def as_number(name: str, value: float) -> int | float:
    """A number of the type that a hyper-parameter has."""
    return round(value) if Hyperparameters.model_fields[name].annotation is int else value


SWEEP_FILE = FileKind(
    SweepSpec,
    "a sweep file",
    "a sweep: `sweep: <name>`, `data`, `adapter`, `search` …",
    patterns={
        rf"^[a-z][a-z0-9-]{{0,{LONGEST_NAME - 1}}}$": (
            f"must be a to z, 0 to 9 and `-`, begin with a letter, and have at most {LONGEST_NAME}"
            " characters"
        )
    },
    contradictions=contradictions,
)
