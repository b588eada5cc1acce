"""Positions of the marks in the plots, which the templates draw.

Horizontal positions are percentages: a plot fills any width, and its text keeps its size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tuneproof.analysis import Comparison, Comparisons, measures_of, score_of
from tuneproof.report.numbers import decimals_of, interval_text, label_of, plain, signed
from tuneproof.results import StudyResults

EDGE = 3.0
"""Percent of the width that stays free on each side."""

SCATTER_HEIGHT = 300.0
"""Pixels."""

MOST_DOTS = 1500
"""Of a scatter plot: more hide each other, and take a browser's time."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled position."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear axis from `low` to `high`, of round ticks."""

    low: float
    high: float
    ticks: tuple[Tick, ...]

    def at(self, value: float) -> float:
        """Percent of the width, kept inside the plot."""
        share = (value - self.low) / (self.high - self.low)
        return round(EDGE + (100.0 - 2 * EDGE) * min(max(share, 0.0), 1.0), 3)


def axis_of(low: float, high: float, *, signs: bool = False) -> Axis:
    """An axis with four to nine round ticks that holds `low` to `high`."""
    width = max(high - low, 1e-9)
    step = 10.0 ** math.floor(math.log10(width / 4.0))
    step = next(size for size in (step, 2 * step, 5 * step, 10 * step) if width / size <= 8.0)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    blank = Axis(first * step, last * step, ())
    write = signed if signs else plain
    ticks = tuple(
        Tick(blank.at(index * step), write(index * step, decimals))
        for index in range(first, last + 1)
    )
    return Axis(blank.low, blank.high, ticks)


@dataclass(frozen=True, slots=True)
class ForestRow:
    """One primary comparison."""

    cell: str
    label: str
    measure: str
    words: str
    verdict: str
    figures: str
    """Difference and interval."""
    point: float
    low: float | None
    high: float | None
    margin_low: float
    margin_high: float
    colour: int
    """Index of the cell, which picks its colour and mark."""


@dataclass(frozen=True, slots=True)
class Forest:
    """Differences with their intervals, all on one axis."""

    unit: str
    zero: float
    ticks: tuple[Tick, ...]
    rows: tuple[ForestRow, ...]


def forests(results: StudyResults, comparisons: Comparisons) -> tuple[Forest, ...]:
    """A plot for each scale (unit and range) that has something to show."""
    scales: dict[str, list[Comparison]] = {}
    for one in comparisons.primary:
        if one.difference is not None:
            scales.setdefault(one.scale.words, []).append(one)
    return tuple(_forest(results, scale, shown) for scale, shown in scales.items())


def _forest(results: StudyResults, unit: str, shown: Sequence[Comparison]) -> Forest:
    ends = [0.0]
    for one in shown:
        margin = one.margin or 0.0
        ends += [-margin, margin, one.difference or 0.0]
        if one.interval is not None:
            ends += [one.interval.low, one.interval.high]
    axis = axis_of(min(ends), max(ends), signs=True)
    names = {cell.name: (index, cell.label) for index, cell in enumerate(results.cells)}
    rows = []
    for one in shown:
        margin = one.margin or 0.0
        decimals = decimals_of(one)
        interval = "" if one.interval is None else f" ({interval_text(one)})"
        rows.append(
            ForestRow(
                cell=one.cell,
                label=names[one.cell][1],
                measure=label_of(one.measure),
                words=one.words,
                verdict=str(one.verdict),
                figures=f"{signed(one.difference, decimals)}{interval}",
                point=axis.at(one.difference or 0.0),
                low=None if one.interval is None else axis.at(one.interval.low),
                high=None if one.interval is None else axis.at(one.interval.high),
                margin_low=axis.at(-margin),
                margin_high=axis.at(margin),
                colour=names[one.cell][0],
            )
        )
    return Forest(unit, axis.at(0.0), axis.ticks, tuple(rows))


@dataclass(frozen=True, slots=True)
class Dot:
    """An answer, or a cell's mean."""

    x: float
    y: float
    """Pixels from the top."""
    colour: int
    item: str
    """Id of the item; empty for a mean."""
    title: str


@dataclass(frozen=True, slots=True)
class Scatter:
    """Length of every answer against its score."""

    measure: str
    ticks: tuple[Tick, ...]
    rungs: tuple[Tick, ...]
    """Labelled heights, in pixels."""
    dots: tuple[Dot, ...]
    means: tuple[Dot, ...]
    answers: int
    """All that have a score."""
    every: int
    """Dots are the answers to every so many questions."""


def scatter(results: StudyResults) -> Scatter | None:
    """Length against completeness, or against another measure where nobody judged it."""
    measures = measures_of(results)
    known = (*measures.judged, *measures.lexical)
    if not known:
        return None
    wanted = ("completeness", *measures.judged, "token_f1", *known)
    measure = measures.of(next(name for name in wanted if name in known))
    names = {cell.name: (index, cell.label) for index, cell in enumerate(results.cells)}
    points = [
        (names[answer.cell], answer.item, len(answer.text.split()), score)
        for answer in results.answers
        if answer.cell in names and (score := score_of(answer, measure.name)) is not None
    ]
    if not points:
        return None
    low = measure.low
    high = max(point[3] for point in points) if measure.high is None else measure.high
    axis = axis_of(0.0, max(1.0, *(point[2] for point in points)))
    decimals = measure.decimals

    def height(score: float) -> float:
        return round(12.0 + (SCATTER_HEIGHT - 24.0) * (high - score) / max(high - low, 1e-9), 2)

    every = math.ceil(len(points) / MOST_DOTS)
    drawn = {item.id for item in results.items[::every]}
    dots = tuple(
        Dot(
            axis.at(words),
            height(score),
            cell[0],
            item,
            f"{cell[1]}: {words} words, {plain(score, decimals)}",
        )
        for cell, item, words, score in points
        if item in drawn
    )
    means = []
    for index, label in names.values():
        mine = [point for point in points if point[0][0] == index]
        if mine:
            words = math.fsum(point[2] for point in mine) / len(mine)
            score = math.fsum(point[3] for point in mine) / len(mine)
            title = f"{label}: {words:.1f} words, {plain(score, decimals)} on average"
            means.append(Dot(axis.at(words), height(score), index, "", title))
    rungs = tuple(Tick(height(value), text) for value, text in _rungs(low, high))
    return Scatter(
        label_of(measure.name), axis.ticks, rungs, dots, tuple(means), len(points), every
    )


def _rungs(low: float, high: float) -> list[tuple[float, str]]:
    """Both ends of a scale and the round values between them, with their text."""
    wide = axis_of(low, high)
    step = (wide.high - wide.low) / (len(wide.ticks) - 1)
    decimals = max((len(tick.text.partition(".")[2]) for tick in wide.ticks), default=0)
    inner = [wide.low + index * step for index in range(len(wide.ticks))]
    values = [low, *(value for value in inner if low + step / 2 < value < high - step / 2), high]
    return [(value, plain(value, decimals)) for value in values]


def sparkline(losses: Sequence[tuple[int, float]], points: int = 160) -> str:
    """Points of an SVG polyline in a box of 100 by 30, the highest loss on top; thinned."""
    if len(losses) < 2:
        return ""
    stride = max(1, len(losses) // points)
    kept = [*losses[:-1:stride], losses[-1]]
    first, last = kept[0][0], kept[-1][0]
    top, bottom = max(loss for _, loss in kept), min(loss for _, loss in kept)
    return " ".join(
        f"{100.0 * (step - first) / max(last - first, 1):.2f},"
        f"{2.0 + 26.0 * (top - loss) / max(top - bottom, 1e-12):.2f}"
        for step, loss in kept
    )
