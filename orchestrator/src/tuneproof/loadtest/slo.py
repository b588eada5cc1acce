"""The objectives of a load test, and whether it meets them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from tuneproof.loadtest.figures import Figures
from tuneproof.servicekit.yamlfile import FileKind


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Latency(_Section):
    """Upper limits, by percentile."""

    p50: float | None = Field(default=None, gt=0, description="Median, in seconds.")
    p95: float | None = Field(default=None, gt=0, description="95th percentile, in seconds.")
    p99: float | None = Field(default=None, gt=0, description="99th percentile, in seconds.")


class Slo(_Section):
    """Objectives. By default no request or swap may fail, and no answer may be wrong where that
    was measured; the others hold only when they are set."""

    requests: int | None = Field(default=None, ge=1, description="Fewest requests.")
    swaps: int | None = Field(default=None, ge=1, description="Fewest completed swaps.")
    failed: int | None = Field(default=0, ge=0, description="Most requests without an answer.")
    failed_swaps: int | None = Field(default=0, ge=0, description="Most failed swaps.")
    wrong_adapter: int | None = Field(
        default=0, ge=0, description="Most answers of another adapter, or of the base model."
    )
    checked_text: int | None = Field(
        default=None, ge=1, description="Fewest answers whose text was compared."
    )
    first_token: Latency | None = Field(
        default=None, description="Due time to first token, with swaps if there are any."
    )
    whole: Latency | None = Field(default=None, description="Due time to the end of the answer.")
    load_to_first_token: Latency | None = Field(
        default=None, description="Declaration of an adapter to the first token of a request to it."
    )
    throughput_ratio: float | None = Field(
        default=None, gt=0, description="Least throughput with swaps over without."
    )
    first_token_ratio: float | None = Field(
        default=None, gt=0, description="Most first token after READY over a warm one (medians)."
    )
    p99_ratio: float | None = Field(
        default=None, gt=0, description="Most 99th percentile with swaps over without."
    )


@dataclass(frozen=True, slots=True)
class Check:
    """One objective and the measured value."""

    name: str
    """As in the file; `first_token.p99` for a percentile."""
    limit: float
    at_least: bool
    """Else at most."""
    found: float | None
    """None: it was not measured, so the objective is missed."""

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
        InvalidInput: names every key that does not fit, with its line.
    """
    return _SLO_FILE.load(path)


def checks_of(slo: Slo, figures: Figures) -> tuple[Check, ...]:
    """Every objective, in the order of the fields of `Slo`."""
    side = figures.sides.get("swap") or figures.sides.get("quiet") or {}
    latencies = {
        "first_token": side.get("first_token", {}),
        "whole": side.get("whole", {}),
        "load_to_first_token": figures.load.get("declare_to_first_token", {}),
    }
    found: list[Check] = []
    for name in Slo.model_fields:
        limit = getattr(slo, name)
        if isinstance(limit, Latency):
            for point, seconds in limit.model_dump(exclude_none=True).items():
                measured = latencies[name].get(point)
                found.append(Check(f"{name}.{point}", seconds, at_least=False, found=measured))
        elif limit is not None:
            value = getattr(figures, name)
            if name == "wrong_adapter" and not figures.checked_digest + figures.checked_text:
                value = None  # No answer was compared with anything.
            # A default objective counts only where it was measured: another server does not say
            # which adapter answered.
            if value is not None or name in slo.model_fields_set:
                found.append(Check(name, limit, name in _AT_LEAST, value))
    return tuple(found)
