"""A jury: the file that names several judges."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tuneproof.servicekit.http import is_http
from tuneproof.servicekit.yamlfile import FileKind, Location, repeated


class Juror(BaseModel):
    """One judge of a jury."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    """Base URL of an OpenAI-compatible endpoint."""
    model: str = Field(min_length=1)
    """The judge model's name there."""
    api_key_file: Path | None = None
    """File with the endpoint's key; read again when it changes."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if not is_http(value):
            raise ValueError("is not an http:// or https:// URL")
        return value


class Jury(BaseModel):
    """Several judges, whose mean is the grade."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judges: tuple[Juror, ...] = Field(min_length=2, max_length=9)


def _mistakes(jury: Jury) -> list[tuple[Location, str]]:
    return repeated([each.model for each in jury.judges], ("judges",), "the model")


load_jury = FileKind(
    Jury,
    noun="a jury's file",
    expected="a jury: `judges:` with a url and a model each",
    contradictions=_mistakes,
).load
"""Reads the file; one message lists all its mistakes."""
