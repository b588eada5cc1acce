"""What a gate demands: its file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tuneproof.analysis.strata import KindName
from tuneproof.servicekit.yamlfile import FileKind


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SevereLossPolicy(_Section):
    """How many answers may lose much."""

    points: float | None = Field(default=None, gt=0)
    """What a severe loss is, in the measure's units; without it, half of the measure's range."""
    share: float = Field(default=0.05, gt=0, lt=1)
    """The upper bound of the share of items that lose as much must be below."""


class JudgePolicy(_Section):
    """When the judge's word counts."""

    require: Literal["certificate", "anchored"] = "certificate"
    """`certificate`: labels, or the judge's agreement with known scores; `anchored`: labels."""
    kappa: float = Field(default=0.6, gt=0, le=1)
    """Least κ of the judge with known scores, or in its certificate."""
    certificates: tuple[Path, ...] = ()
    """Files of `tuneproof judge calibrate`, relative to the policy's file: they count where the
    study knows no right scores."""


class Policy(_Section):
    """What an adapter must show. All must hold."""

    margin: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """δ by measure, in the measure's own units; without it, those of the study."""
    strata: tuple[KindName, ...] = ()
    """Kinds of questions in each of which it must not be worse; over all it must not in any
    case."""
    tail: float = Field(default=0.025, gt=0, lt=0.5)
    """One-sided error of each single check; among K adapters `choice` divides it."""
    choice: Literal["bonferroni", "holm", "sequence"] = "bonferroni"
    """How K adapters share the tail: each has a K-th; what passes leaves its share to the others;
    or each has it whole, in the order given, until one does not pass."""
    guaranteed: bool = True
    """The bound that holds for any distribution must be above -δ too."""
    severe_loss: SevereLossPolicy | None = SevereLossPolicy()
    judge: JudgePolicy = JudgePolicy()
    cost_ratio: float | None = Field(default=None, gt=0)
    """Most that an answer may cost, by that of what it is compared with: in money where the study
    has prices, else in tokens."""
    seconds: float | None = Field(default=None, gt=0)
    """Longest mean time of an answer that is asked for alone."""
    seconds_ratio: float | None = Field(default=None, gt=0)
    """The same, by that of what it is compared with."""


_POLICY_FILE = FileKind(
    Policy,
    noun="a gate's policy",
    expected="a policy such as `margin: {accuracy: 0.25}`",
)


def load_policy(path: Path) -> Policy:
    """Reads a policy's file; one message lists all its mistakes."""
    found = _POLICY_FILE.load(path)
    paths = tuple(path.parent / each for each in found.judge.certificates)
    judge = found.judge.model_copy(update={"certificates": paths})
    return found.model_copy(update={"judge": judge})
