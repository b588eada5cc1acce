"""A study's stages on the terminal: bars; elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

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
    if console.is_terminal:
        return BarProgress(console)
    return LineProgress(partial(console.print, markup=False))


@dataclass(frozen=True)
class _Bar:
    bars: Bars
    task: TaskID

    def advance(self, count: int = 1) -> None:
        self.bars.advance(self.task, count)

    def note(self, text: str) -> None:
        self.bars.update(self.task, note=text)


class BarProgress:
    """A bar for each stage under way, with its count and the time that remains."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: Bars | None = None
        self._open = 0

    @contextmanager
    def stage(self, name: str, total: int, done: int) -> Iterator[Stage]:
        """Shows a bar while the context lasts; its last state stays."""
        with self._shared_bars() as bars:
            bar = _Bar(bars, bars.add_task(name, total=total, completed=done, note=""))
            yield bar
            bar.note("")

    def say(self, text: str) -> None:
        """Prints a line above the bars."""
        self.console.print(text, markup=False)

    @contextmanager
    def _shared_bars(self) -> Iterator[Bars]:
        """One display for all stages under way: a console shows no two."""
        bars = self._bars = self._bars or Bars(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
        )
        self._open += 1
        try:
            bars.start()
            yield bars
        finally:
            self._open -= 1
            if not self._open:
                bars.stop()
                self._bars = None


class _Line:
    def __init__(self, progress: LineProgress, name: str, total: int, done: int) -> None:
        self._emit, self._clock = progress.say, progress.clock
        self._name, self._total, self._done = name, total, done
        self._start = self._shown = self._clock()
        self._at_start = done
        self._note = ""

    def advance(self, count: int = 1) -> None:
        self._done += count
        self._show_now_and_then()

    def note(self, text: str) -> None:
        self._note = text
        self._show_now_and_then()

    def finish(self) -> None:
        self._emit(f"{self._count()} in {self._clock() - self._start:.1f} s")

    def _show_now_and_then(self) -> None:
        now = self._clock()
        if now - self._shown < _SECONDS_BETWEEN_LINES:
            return
        self._shown = now
        parts = [self._count()]
        if fresh := self._done - self._at_start:
            left = (now - self._start) / fresh * (self._total - self._done)
            parts.append(f"about {left:.0f} s left")
        self._emit("  ".join(filter(None, [*parts, self._note])))

    def _count(self) -> str:
        return f"{self._name:<10} {self._done}/{self._total}"


@dataclass(frozen=True)
class LineProgress:
    """A line at the end of each stage, and at most one every three seconds before it."""

    emit: Callable[[str], None]
    """Prints a line."""
    clock: Callable[[], float] = time.monotonic
    """Monotonic seconds."""

    @contextmanager
    def stage(self, name: str, total: int, done: int) -> Iterator[Stage]:
        """Prints lines while the context lasts."""
        line = _Line(self, name, total, done)
        yield line
        line.finish()

    def say(self, text: str) -> None:
        """Prints a line."""
        self.emit(text)
