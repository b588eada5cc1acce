"""A run while it goes on: its curve and pace on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from tuneproof.cli.console import ExitCode, say
from tuneproof.cli.runs.curves import chart
from tuneproof.cli.runs.tables import curves_of, summary_of
from tuneproof.sdk import RunInfo

Show = Callable[[RunInfo], None]

_SECONDS_BETWEEN_LINES = 3.0
_HEIGHT = 14
_MARGIN = 8
"""Lines of a terminal that are left to what stands around the plot."""


@contextmanager
def shown_on(console: Console, *, clock: Callable[[], float] = time.monotonic) -> Iterator[Show]:
    """What shows a run at each change: a live plot on a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        yield _Lines(lambda text: console.print(text, markup=False), clock).show
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda run: live.update(plot_of(run, console.width, console.height), refresh=True)


def plot_of(run: RunInfo, width: int, height: int) -> Group:
    """The run's curve with its state above."""
    lines = [f"run {run.id}  {summary_of(run)}"]
    if run.losses:
        lines += chart(curves_of(run), width=width - 1, height=min(_HEIGHT, height - _MARGIN))
    return Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in lines))


class _Lines:
    """A line when the state changes, and at most one every three seconds beside."""

    def __init__(self, emit: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._emit, self._clock = emit, clock
        self._state = ""
        self._last = 0.0

    def show(self, run: RunInfo) -> None:
        now = self._clock()
        if run.state == self._state and now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._state, self._last = run.state, now
        self._emit(f"{run.id}  {summary_of(run)}")


@contextmanager
def left_going(run_id: str) -> Iterator[None]:
    """On Ctrl-C the run goes on: says so, and how to come back."""
    try:
        yield
    except KeyboardInterrupt:
        say(
            f"tuneproof: run {run_id} goes on; `tuneproof runs watch {run_id}` shows it again,"
            f" `tuneproof runs cancel {run_id}` ends it"
        )
        raise SystemExit(ExitCode.INTERRUPTED) from None


def code_of(run: RunInfo) -> ExitCode:
    """The exit code of a command that saw a run to its end."""
    return ExitCode.DONE if run.state == "succeeded" else ExitCode.FAILED
