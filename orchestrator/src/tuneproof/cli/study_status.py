"""What `tuneproof study status` shows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from tuneproof.cli.console import out, print_json
from tuneproof.local import Supervisor
from tuneproof.study.state.lock import holder
from tuneproof.study.state.store import Count
from tuneproof.study.status import CellCount, is_complete

_SECONDS_BETWEEN_LOOKS = 1.0


def show_status(
    counts: list[Count], state: Path, cells: list[CellCount] | None = None, *, as_json: bool
) -> None:
    """Prints how far a study is, once.

    Args:
        cells: each of them too; None: the stages alone.
    """
    if as_json:
        listed = {} if cells is None else {"cells": [asdict(one) for one in cells]}
        print_json({**_json_of(counts, state), **listed})
        return
    out.print(_page(counts, state))
    if cells is not None:
        out.print(_cell_table(cells))


def watch_status(look: Callable[[], list[Count]], state: Path) -> None:
    """Shows how far a study is, again and again until it is done."""
    counts = look()
    with Live(_page(counts, state), console=out, auto_refresh=False) as live:
        while not is_complete(counts):
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            counts = look()
            live.update(_page(counts, state), refresh=out.is_terminal)


def _json_of(counts: list[Count], state: Path) -> dict[str, Any]:
    stages = [
        {
            "stage": one.stage,
            "done": one.done,
            "total": one.total,
            "failed": one.failed,
            "seconds_left": one.seconds_left,
        }
        for one in counts
    ]
    running = holder(state)
    return {
        "stages": stages,
        "complete": is_complete(counts),
        "run": running.pid if running else None,
        "services": Supervisor(state).running(),
    }


def _page(counts: list[Count], state: Path) -> Group:
    table = Table(box=None, pad_edge=False)
    for name in ("stage", "done", "of", "failed", "a minute", "left"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for one in counts:
        rate = f"{60 * one.fresh / one.seconds:,.0f}" if one.fresh and one.seconds else ""
        table.add_row(
            one.stage, f"{one.done:,}", f"{one.total:,}", f"{one.failed:,}", rate, _left(one)
        )
    running = holder(state)
    services = Supervisor(state).running()
    listed = ", ".join(f"{name} (process {pid})" for name, pid in services.items())
    return Group(
        table,
        f"run: {f'under way ({running})' if running else 'none under way'}",
        f"services here: {listed or 'none'}",
    )


def _cell_table(cells: list[CellCount]) -> Table:
    several = len({one.model for one in cells}) > 1
    table = Table(box=None, pad_edge=False)
    for name in (*(["model"] if several else []), "cell", "training"):
        table.add_column(name, overflow="fold")
    for name in ("answers", "grades", "of", "failed"):
        table.add_column(name, justify="right")
    explained = any(one.why for one in cells)
    if explained:
        table.add_column("why", overflow="fold")
    for one in cells:
        figures = (one.answers, one.grades, one.questions, one.failed)
        table.add_row(
            *([one.model] if several else []),
            one.cell,
            "" if one.training == "none" else one.training,
            *(f"{each:,}" for each in figures),
            *([escape(one.why)] if explained else []),
        )
    return table


def _left(one: Count) -> str:
    """When a stage may be done, at the rate of its run."""
    seconds = one.seconds_left
    if seconds is None:
        return "not known yet"
    if not seconds:
        return ""
    return f"about {seconds / 3600:.1f} h" if seconds >= 3600 else f"about {seconds / 60:.1f} min"
