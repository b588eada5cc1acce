"""Runs on the terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from rich.table import Table

from tuneproof.cli.console import out
from tuneproof.cli.runs.curves import Curve, chart
from tuneproof.cli.runs.figures import figures_of, settings_of, short_ref, words_of
from tuneproof.sdk import RunInfo

_WIDTH = 1000
_ANY: TypeAdapter[Any] = TypeAdapter(Any)


def json_of(run: RunInfo) -> Any:
    """A run for JSON: times in ISO 8601, with the figures that the tables show."""
    return {**_ANY.dump_python(run, mode="json"), "figures": asdict(figures_of(run))}


def show_runs(runs: Iterable[RunInfo]) -> None:
    """Prints one line each."""
    table = Table("run", "state", "steps", "loss", "base", "created", "adapter, or why", box=None)
    for one in runs:
        at = one.progress
        table.add_row(
            one.id,
            one.state,
            f"{at.step}/{at.total_steps}" if at.total_steps else "",
            f"{at.loss:.3f}" if at.step else "",
            one.spec.base_model,
            time_of(one.create_time),
            short_ref(one.adapter_ref) or one.reason,
        )
    _print(table)


def show_run(one: RunInfo) -> None:
    """Prints all that is known of it, with its curve."""
    table = Table(box=None, show_header=False)
    facts = {
        "run": one.id,
        "state": f"{one.state}: {one.reason}" if one.reason else one.state,
        "adapter": one.adapter_ref or "none yet",
        "created": time_of(one.create_time),
        "started": time_of(one.start_time),
        "ended": time_of(one.end_time),
        "progress": summary_of(one),
        "attempts": str(one.attempt) if one.attempt > 1 else "",
        "newest checkpoint": f"step {one.checkpoint_step}" if one.checkpoint_step else "",
        **{name: words_of(value) for name, value in settings_of(one.spec).items()},
        "data_path": one.spec.data_path,
    }
    for name, value in facts.items():
        if value:
            table.add_row(name, value)
    for name, value in sorted(one.provenance.items()):
        if name not in facts and name != "hyperparameters":
            table.add_row(name, value)
    _print(table)
    if one.losses:
        out.print()
        for line in chart(curves_of(one)):
            out.print(line, markup=False)


def curves_of(run: RunInfo) -> list[Curve]:
    """The curve of its losses, and that of its validations where there are some."""
    found = [Curve("loss", run.losses)]
    if run.validation_losses:
        found.append(Curve("validation loss", run.validation_losses))
    return found


def summary_of(run: RunInfo) -> str:
    """State, step, losses, pace and what is left, in one line."""
    at = run.progress
    waits = run.state == "running" and run.phase not in {"", "training"}
    parts = [f"{run.state} ({run.phase})" if waits else run.state]
    if at.total_steps:
        parts.append(f"step {at.step}/{at.total_steps}")
    if at.step:
        parts.append(f"loss {at.loss:.3f}")
    if run.validation_losses:
        parts.append(f"validation loss {run.validation_losses[-1][1]:.3f}")
    if not run.ended:
        if at.tokens_per_second:
            parts.append(f"{at.tokens_per_second:,.0f} tokens/s")
        if at.step and at.eta_seconds:
            parts.append(f"about {lasting(at.eta_seconds)} left")
    parts += filter(None, (run.reason, run.warning))
    return "  ".join(parts)


def columns(rows: Sequence[tuple[str, Sequence[str]]], heads: Sequence[str]) -> None:
    """Prints a row for each name, with a column for each run."""
    table = Table("", *heads, box=None)
    for name, values in rows:
        table.add_row(name, *values)
    _print(table)


def lasting(seconds: float) -> str:
    """`8 s`, `4 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def time_of(moment: datetime | None) -> str:
    """A time of this place; nothing for None."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""


def _print(table: Table) -> None:
    """Prints it in its full width, so that an id stays in one piece and can be copied."""
    out.print(table, markup=False, width=_WIDTH, crop=False)
