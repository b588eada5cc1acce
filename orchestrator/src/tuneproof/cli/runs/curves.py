"""Loss curves in characters: steps to the right, the loss upwards."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

MARKS = "●+◆o■*▲#"
"""One for each curve, again from the first after the last."""
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille character, by row and column."""
_BRAILLE = 0x2800
_LABEL = 8
_NARROWEST = 20


@dataclass(frozen=True, slots=True)
class Curve:
    """Losses of one run, or of its validations."""

    name: str
    points: Sequence[tuple[float, float]]
    """Step and loss, oldest first. What is not finite is left out."""


def chart(curves: Sequence[Curve], *, width: int = 72, height: int = 12) -> list[str]:
    """Lines of text: one curve in braille dots, several with a mark each and a legend.

    Args:
        width: columns, labels included.
        height: lines of the plot, without axis and legend.
    """
    shown = [Curve(each.name, _finite(each.points)) for each in curves]
    points = [point for each in shown for point in each.points]
    if not points:
        return ["no loss yet"]
    frame = _frame(points, max(_NARROWEST, width - _LABEL - 2), max(3, height))
    one = len([each for each in shown if each.points]) == 1 and len(shown) == 1
    rows = _braille(frame, shown[0].points) if one else _marked(frame, shown)
    lines = [f"{_label(frame, row):>{_LABEL}} ┤{text}".rstrip() for row, text in enumerate(rows)]
    lines.append(f"{'':{_LABEL}} └{'─' * frame.columns}")
    first, last = f"{frame.left:g}", f"step {frame.right:g}"
    lines.append(f"{'':{_LABEL}}  {first}{last:>{frame.columns - len(first)}}")
    if not one:
        lines += [
            f"{'':{_LABEL}}  {mark_of(number)} {each.name}" for number, each in enumerate(shown)
        ]
    return lines


def mark_of(number: int) -> str:
    """The mark of a curve by its place."""
    return MARKS[number % len(MARKS)]


@dataclass(frozen=True, slots=True)
class _Frame:
    left: float
    right: float
    low: float
    high: float
    columns: int
    rows: int

    def at(self, step: float, loss: float, columns: int, rows: int) -> tuple[int, int]:
        """Column and row from the upper left corner, in a grid of this size."""
        across = (step - self.left) / ((self.right - self.left) or 1.0)
        up = (loss - self.low) / ((self.high - self.low) or 1.0)
        return round(across * (columns - 1)), round((1.0 - up) * (rows - 1))


def _frame(points: Sequence[tuple[float, float]], columns: int, rows: int) -> _Frame:
    steps, losses = [step for step, _ in points], [loss for _, loss in points]
    low, high = min(losses), max(losses)
    if low == high:  # A flat line stands in the middle.
        low, high = low - 0.5, high + 0.5
    return _Frame(min(steps), max(steps), low, high, columns, rows)


def _finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(step, loss) for step, loss in points if math.isfinite(loss)]


def _label(frame: _Frame, row: int) -> str:
    if row not in (0, frame.rows // 2, frame.rows - 1):
        return ""
    value = frame.high - row / (frame.rows - 1) * (frame.high - frame.low)
    return f"{value:.3f}" if max(abs(frame.low), abs(frame.high)) < 1000 else f"{value:.0e}"


def _braille(frame: _Frame, points: Sequence[tuple[float, float]]) -> list[str]:
    """Two dots across and four down in a character."""
    cells = [[0] * frame.columns for _ in range(frame.rows)]
    for column, row in _line(frame, points, 2 * frame.columns, 4 * frame.rows):
        cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
    return ["".join(chr(_BRAILLE + cell) if cell else " " for cell in row) for row in cells]


def _marked(frame: _Frame, curves: Sequence[Curve]) -> list[str]:
    cells = [[" "] * frame.columns for _ in range(frame.rows)]
    for number, each in enumerate(curves):
        for column, row in _line(frame, each.points, frame.columns, frame.rows):
            cells[row][column] = mark_of(number)
    return ["".join(row) for row in cells]


def _line(
    frame: _Frame, points: Sequence[tuple[float, float]], columns: int, rows: int
) -> Iterator[tuple[int, int]]:
    """The places of the points and of those between them."""
    places = [frame.at(step, loss, columns, rows) for step, loss in points]
    yield from places
    for (from_column, from_row), (to_column, to_row) in pairwise(places):
        length = max(abs(to_column - from_column), abs(to_row - from_row))
        for part in range(1, length):
            yield (
                round(from_column + (to_column - from_column) * part / length),
                round(from_row + (to_row - from_row) * part / length),
            )
