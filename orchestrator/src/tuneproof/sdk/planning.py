"""What a run would do, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tuneproof.sdk.runs import RunSpec


@dataclass(frozen=True, slots=True)
class DataCounts:
    """Counts over what is trained on."""

    examples: int
    validation_examples: int
    dropped_examples: int
    """Too long, whether they are left out or refused."""
    prompt_tokens: int
    answer_tokens: int
    """The tokens that the loss sees."""
    longest_example_tokens: int
    padding_tokens: int
    """In one pass, an estimate."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What stands out in data or settings."""

    code: str
    """As `too_long`, `duplicate`, `leak`."""
    message: str
    refused: bool
    """Whether the run would fail."""
    lines: tuple[int, ...]
    """Of the data, the first 100."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A token of an example."""

    token_id: int
    text: str
    learned: bool
    """Whether the loss sees it."""


@dataclass(frozen=True, slots=True)
class Preview:
    """An example as tokens."""

    line: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A run before it is one."""

    spec: RunSpec
    """With every default filled in."""
    counts: DataCounts | None
    """None where the data cannot be read; a finding says why."""
    total_steps: int
    total_tokens: int
    """That the training reads, repetitions included."""
    accumulation: int
    """Forward passes per optimiser step and device."""
    devices: int
    memory: Mapping[str, int]
    """Bytes by part and device, the largest first; empty where they cannot be told."""
    device_memory_bytes: int
    """0: not known."""
    seconds: float | None
    """At the speed of the trainer's earlier runs; None without one."""
    tokens_per_second: float
    measured_runs: int
    unquantised: tuple[str, ...]
    """Parts of the base that stay as they are while the rest is quantised."""
    findings: tuple[Finding, ...]
    """Those that refuse the run first."""
    previews: tuple[Preview, ...]

    @property
    def refused(self) -> bool:
        """Whether the run would fail."""
        return any(finding.refused for finding in self.findings)
