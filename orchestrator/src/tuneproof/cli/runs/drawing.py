"""Loss curves as an SVG file, readable on a light and a dark page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from tuneproof.cli.runs.curves import Curve

_WIDTH, _HEIGHT = 760, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 16, 44
_ROW = 18
# Okabe and Ito's palette, which colour-blind people tell apart; the dashes differ too.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#888888")
_DASHES = ("", "6 3", "2 3", "8 3 2 3")


def draw(curves: Sequence[Curve], label: str) -> str:
    """The file's text.

    Args:
        label: of the upward axis.
    """
    points = [point for each in curves for point in each.points if math.isfinite(point[1])]
    height = _HEIGHT + _ROW * len(curves)
    box = f'viewBox="0 0 {_WIDTH} {height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif" font-size="12">',
        f"<title>{escape(label)}: {escape(', '.join(each.name for each in curves))}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    if points:
        lines += _plot(curves, points, label)
    return "\n".join([*lines, "</svg>", ""])


def _plot(
    curves: Sequence[Curve], points: Sequence[tuple[float, float]], label: str
) -> Iterator[str]:
    steps, losses = [step for step, _ in points], [loss for _, loss in points]
    across, up = ticks(min(steps), max(steps)), ticks(min(losses), max(losses))
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(step: float) -> float:
        return _LEFT + (step - across[0]) / (across[-1] - across[0]) * (right - _LEFT)

    def y(loss: float) -> float:
        return bottom - (loss - up[0]) / (up[-1] - up[0]) * (bottom - _TOP)

    for value in up:
        yield f'<path d="M{_LEFT} {y(value):.1f}H{right}" stroke="#dddddd"/>'
        yield (f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in across:
        yield f'<text x="{x(value):.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>'
    yield f'<text x="{(right + _LEFT) / 2:.0f}" y="{bottom + 34}" text-anchor="middle">step</text>'
    middle = (bottom + _TOP) / 2
    yield (
        f'<text transform="translate(14 {middle:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(label)}</text>"
    )
    for number, each in enumerate(curves):
        stroke = f'stroke="{_COLOURS[number % len(_COLOURS)]}" stroke-width="1.6"'
        if dash := _DASHES[number // len(_COLOURS) % len(_DASHES)]:
            stroke += f' stroke-dasharray="{dash}"'
        line = " ".join(
            f"{x(step):.1f},{y(loss):.1f}" for step, loss in each.points if math.isfinite(loss)
        )
        yield f'<polyline points="{line}" fill="none" {stroke}/>'
        at = _HEIGHT + _ROW * number
        yield f'<path d="M{_LEFT} {at}h28" {stroke}/>'
        yield f'<text x="{_LEFT + 36}" y="{at + 4}">{escape(each.name)}</text>'


def ticks(low: float, high: float) -> list[float]:
    """Round values from at most `low` to at least `high`, three to nine of them."""
    width = (high - low) or 1.0
    step = 10.0 ** math.floor(math.log10(width / 4))
    step = next(size for size in (step, 2 * step, 5 * step, 10 * step) if width / size <= 7)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, max(last, first + 1) + 1)]
