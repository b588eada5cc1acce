"""The objectives that a load test is held to, and whether it meets them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from tuneproof.loadtest.figures import Figures
from tuneproof.servicekit.yamlfile import FileKind


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Latency(_Section):
    """Most seconds, by percentile."""

    p50: float | None = Field(default=None, gt=0, description="Median, in seconds.")
    p95: float | None = Field(default=None, gt=0, description="95th percentile, in seconds.")
    p99: float | None = Field(default=None, gt=0, description="99th percentile, in seconds.")


class Slo(_Section):
    """Objectives; one that is left out is not asked for, except that nothing may fail, or be wrong
    where that was measured."""

    requests: int | None = Field(default=None, ge=1, description="At least so many requests.")
    swaps: int | None = Field(default=None, ge=1, description="At least so many swaps that ended.")
    failed: int | None = Field(
        default=0, ge=0, description="At most so many requests without an answer."
    )
    failed_swaps: int | None = Field(
        default=0, ge=0, description="At most so many swaps that failed."
    )
    wrong_adapter: int | None = Field(
        default=0,
        ge=0,
        description="At most so many answers of another adapter, or of the base model.",
    )
    checked_text: int | None = Field(
        default=None, ge=1, description="At least so many answers whose text was compared."
    )
    first_token: Latency | None = Field(
        default=None, description="Due time to first token, under swaps where there are any."
    )
    whole: Latency | None = Field(default=None, description="Due time to the end of the answer.")
    load_to_first_token: Latency | None = Field(
        default=None, description="Declaration of an adapter to the first token of a request to it."
    )
    throughput_ratio: float | None = Field(
        default=None, gt=0, description="At least this throughput with swaps over without."
    )
    first_token_ratio: float | None = Field(
        default=None,
        gt=0,
        description="At most this first token after READY over a warm one (medians).",
    )
    p99_ratio: float | None = Field(
        default=None, gt=0, description="At most this 99th percentile with swaps over without."
    )


@dataclass(frozen=True, slots=True)
class Check:
    """One objective and what was found."""

    name: str
    """As in the file; `first_token.p99` for a percentile."""
    limit: float
    at_least: bool
    """Else at most."""
    found: float | None
    """None: it was not measured, and so the objective is not met."""

    @property
    def met(self) -> bool:
        if self.found is None:
            return False
        return self.found >= self.limit if self.at_least else self.found <= self.limit


_AT_LEAST = frozenset({"requests", "swaps", "checked_text", "throughput_ratio"})


_SLO_FILE = FileKind(
    Slo, noun="a file of objectives", expected="objectives, one a line, such as `failed: 0`"
)


def read_slo(path: Path) -> Slo:
    """The objectives of a YAML file.

    Raises:
        InvalidInput: naming every key that does not fit, with its line.
    """
    return _SLO_FILE.load(path)


def checks_of(slo: Slo, figures: Figures) -> tuple[Check, ...]:
    """Every objective that is asked for, in the order of the file's keys above."""
    return tuple(_checks(slo, figures))


def _checks(slo: Slo, figures: Figures) -> Iterator[Check]:
    side = figures.sides.get("swap") or figures.sides.get("quiet") or {}
    latencies = {
        "first_token": side.get("first_token", {}),
        "whole": side.get("whole", {}),
        "load_to_first_token": figures.load.get("declare_to_first_token", {}),
    }
    for name in Slo.model_fields:
        limit = getattr(slo, name)
        if isinstance(limit, Latency):
            for point, seconds in limit.model_dump(exclude_none=True).items():
                yield Check(f"{name}.{point}", seconds, False, latencies[name].get(point))
        elif limit is not None:
            found = _found(name, figures)
            # What nobody asked for by name is asked where it was measured: another server does not
            # say which adapter answered.
            if found is not None or name in slo.model_fields_set:
                yield Check(name, limit, name in _AT_LEAST, found)


def _found(name: str, figures: Figures) -> float | None:
    """A figure; wrong answers count as found only where answers were compared with anything."""
    if name == "wrong_adapter" and not figures.checked_digest + figures.checked_text:
        return None
    found: float | None = getattr(figures, name)
    return found
