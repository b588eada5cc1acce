"""A study's stages on the terminal: bars where there is one, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from tuneproof.study.progress import Progress, Stage

_SECONDS_BETWEEN_LINES = 3.0


def progress_on(console: Console) -> Progress:
    """Bars on a terminal, plain lines elsewhere."""
    return BarProgress(console) if console.is_terminal else LineProgress(_print_to(console))


class _Bar:
    def __init__(self, bars: Bars, task: TaskID) -> None:
        self._bars = bars
        self._task = task

    def advance(self, count: int = 1) -> None:
        self._bars.advance(self._task, count)

    def note(self, text: str) -> None:
        self._bars.update(self._task, note=text)


class BarProgress:
    """One bar per stage, with its count and the time it may still take."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def stage(self, name: str, total: int, done: int) -> Iterator[Stage]:
        """A bar while the context lasts; its last state stays."""
        with Bars(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
        ) as bars:
            task = bars.add_task(name, total=total, completed=done, note="")
            yield _Bar(bars, task)
            bars.update(task, note="")

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, markup=False)


class _Line:
    def __init__(
        self,
        name: str,
        total: int,
        done: int,
        emit: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._name, self._total, self._done = name, total, done
        self._emit, self._clock = emit, clock
        self._start = self._shown = clock()
        self._at_start = done
        self._note = ""

    def advance(self, count: int = 1) -> None:
        self._done += count
        self._show_now_and_then()

    def note(self, text: str) -> None:
        self._note = text
        self._show_now_and_then()

    def finish(self) -> None:
        self._note = ""
        self._emit(f"{self._count()} in {self._clock() - self._start:.1f} s")

    def _show_now_and_then(self) -> None:
        now = self._clock()
        if now - self._shown < _SECONDS_BETWEEN_LINES:
            return
        self._shown = now
        self._emit(f"{self._count()}{self._remaining(now)}{self._note and f'  {self._note}'}")

    def _count(self) -> str:
        return f"{self._name:<10} {self._done}/{self._total}"

    def _remaining(self, now: float) -> str:
        fresh = self._done - self._at_start
        if not fresh:
            return ""
        left = (now - self._start) / fresh * (self._total - self._done)
        return f"  about {left:.0f} s left"


class LineProgress:
    """A line at the end of each stage, and at most one each three seconds in between.

    Args:
        emit: prints a line.
        clock: monotonic seconds.
    """

    def __init__(
        self, emit: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._emit = emit
        self._clock = clock

    @contextmanager
    def stage(self, name: str, total: int, done: int) -> Iterator[Stage]:
        """Lines while the context lasts."""
        line = _Line(name, total, done, self._emit, self._clock)
        yield line
        line.finish()

    def say(self, text: str) -> None:
        """A line."""
        self._emit(text)


def _print_to(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, markup=False)
