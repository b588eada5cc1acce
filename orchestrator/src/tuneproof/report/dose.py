"""Number of tuning pairs against the score: a dot for every seed, a line through their means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tuneproof.analysis import Comparisons, Recipe, measures_of, recipes_of
from tuneproof.report.numbers import label_of, plain
from tuneproof.report.plots import Axis, Tick, axis_of
from tuneproof.results import StudyResults

HEIGHT = 240.0
"""Pixels."""

DODGE = 1.4
"""Percent of the width between the marks of two arms at one size."""

_LEFT, _RIGHT, _PAD = 9.0, 96.0, 12.0


@dataclass(frozen=True, slots=True)
class SeedDot:
    """One cell's mean."""

    x: float
    """Percent of the width."""
    y: float
    """Pixels from the top."""
    colour: int
    title: str


@dataclass(frozen=True, slots=True)
class Line:
    """From the mean at one size to the mean at the next."""

    x1: float
    y1: float
    x2: float
    y2: float
    colour: int


@dataclass(frozen=True, slots=True)
class Panel:
    """One measure of one model."""

    title: str
    baseline: float | None
    """Its height, in pixels."""
    baseline_title: str
    rungs: tuple[Tick, ...]
    ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    dots: tuple[SeedDot, ...]
    words: str
    """The plot in words."""


@dataclass(frozen=True, slots=True)
class DoseResponse:
    """All panels, and the arms they show."""

    panels: tuple[Panel, ...]
    arms: tuple[tuple[str, int], ...]
    """Name and colour."""


def dose_response(
    results: StudyResults,
    comparisons: Comparisons,
    measures: Sequence[str],
    colours: Mapping[str, int],
) -> DoseResponse | None:
    """A panel for each measure and model with tuned arms; None with one size and one seed only.

    Args:
        colours: by cell.
    """
    tuned = [one for one in recipes_of(results, comparisons, measures) if one.tuned]
    if len({one.size for one in tuned}) < 2 and all(len(one.seeds) < 2 for one in tuned):
        return None
    by_arm = {one.arm: colours[one.seeds[0].cell] for one in tuned}
    panels = []
    for measure in measures:
        mine = [one for one in tuned if one.measure == measure]
        if not mine:
            continue
        values = [seed.mean for one in mine for seed in one.seeds]
        axis = axis_of(
            min(*values, *(one.mean_against for one in mine)),
            max(*values, *(one.mean_against for one in mine)),
        )
        for model in dict.fromkeys(one.model for one in mine):
            title = f"{label_of(measure)} \N{MIDDLE DOT} {model}" if model else label_of(measure)
            decimals = measures_of(results).of(measure).decimals
            shown = [one for one in mine if one.model == model]
            panels.append(_panel(title, shown, axis, by_arm, decimals))
    return DoseResponse(tuple(panels), tuple(by_arm.items()))


def _panel(
    title: str, shown: Sequence[Recipe], axis: Axis, by_arm: Mapping[str, int], decimals: int
) -> Panel:
    places = _places(sorted({one.size for one in shown}))

    def height(value: float) -> float:
        share = (axis.high - value) / (axis.high - axis.low)
        return round(_PAD + (HEIGHT - 2 * _PAD) * share, 2)

    # Arms stand a little beside each other: equal scores would hide one.
    aside = {arm: DODGE * (place - (len(by_arm) - 1) / 2) for place, arm in enumerate(by_arm)}

    dots = tuple(
        SeedDot(
            round(places[one.size] + aside[one.arm], 3),
            height(seed.mean),
            by_arm[one.arm],
            f"{one.arm}, {one.size:,} pairs, seed {seed.seed}: {plain(seed.mean, decimals)}",
        )
        for one in shown
        for seed in one.seeds
    )
    lines, words = [], []
    for arm, colour in by_arm.items():
        curve = [one for one in shown if one.arm == arm]
        for left, right in pairwise(curve):
            at = [
                (round(places[one.size] + aside[arm], 3), height(one.mean)) for one in (left, right)
            ]
            lines.append(Line(*at[0], *at[1], colour))
        if curve:
            means = ", ".join(f"{plain(one.mean, decimals)} at {one.size:,}" for one in curve)
            words.append(f"{arm}: {means}.")
    against = math.fsum(one.mean_against for one in shown) / len(shown)
    step = (axis.high - axis.low) / (len(axis.ticks) - 1)
    return Panel(
        title=title,
        baseline=height(against),
        baseline_title=f"baseline {plain(against, decimals)}",
        rungs=tuple(
            Tick(height(axis.low + place * step), tick.text)
            for place, tick in enumerate(axis.ticks)
        ),
        ticks=tuple(Tick(at, f"{size:,}") for size, at in places.items()),
        lines=tuple(lines),
        dots=dots,
        words=f"Baseline {plain(against, decimals)}. {' '.join(words)}",
    )


def _places(sizes: Sequence[int]) -> dict[int, float]:
    """Percent of the width for each size: equal ratios are equally far apart."""
    low, high = math.log(sizes[0]), math.log(sizes[-1])
    inner_left, inner_right = _LEFT + 8.0, _RIGHT - 6.0
    if high == low:
        return {sizes[0]: (inner_left + inner_right) / 2}
    return {
        size: round(
            inner_left + (inner_right - inner_left) * (math.log(size) - low) / (high - low), 3
        )
        for size in sizes
    }
