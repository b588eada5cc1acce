"""The lines, bands and marks of the plots over time.

Horizontal positions are percentages of the width, vertical ones pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np

from tuneproof.loadtest.records import Phase, Reply, Swap
from tuneproof.report.numbers import plain
from tuneproof.report.plots import Axis, Tick, axis_of

HEIGHT = 180.0
"""Pixels of a plot of lines."""
_TOP, _BOTTOM = 10.0, 10.0
_BINS = 150
"""Most points of a line."""
ROW = 36.0
"""Pixels of an alias in the plot of states: its name, and the band below."""


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch of time."""

    at: float
    width: float
    kind: str
    """Names its colour in the style sheet."""
    title: str
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class Line:
    """One measure over time; a gap in the measurement divides it into pieces."""

    name: str
    colour: int
    pieces: tuple[str, ...]
    """Points of SVG polylines in a box of 100 by HEIGHT."""


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines over the time of the whole test."""

    id: str
    title: str
    unit: str
    rungs: tuple[Tick, ...]
    """Labelled heights."""
    lines: tuple[Line, ...]
    summary: str
    """What its lines show, in words."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """All plots of one test, on one axis of seconds."""

    ticks: tuple[Tick, ...]
    phases: tuple[Band, ...]
    swaps: tuple[Tick, ...]
    """When aliases moved."""
    plots: tuple[Plot, ...]
    aliases: tuple[Tick, ...]
    """Names at their heights."""
    states: tuple[Band, ...]


def timeline_of(phases: Sequence[Phase]) -> Timeline:
    """The plots of judged phases, which follow one another."""
    origin, end = phases[0].start, max(phase.end for phase in phases)
    axis = axis_of(0.0, end - origin)

    def at(time: float) -> float:
        return axis.at(time - origin)

    swaps = [swap for phase in phases for swap in phase.swaps]
    aliases = sorted({swap.alias for swap in swaps}, key=lambda name: (len(name), name))
    return Timeline(
        ticks=axis.ticks,
        phases=tuple(
            Band(
                at(phase.start),
                at(phase.end) - at(phase.start),
                f"{phase.side}-{phase.load}",
                f"round {phase.round}",
            )
            for phase in phases
        ),
        swaps=tuple(Tick(at(s.moved), f"{s.alias} moved") for s in swaps if s.moved is not None),
        plots=_plots(phases, axis, origin, end),
        aliases=tuple(Tick(index * ROW, alias) for index, alias in enumerate(aliases)),
        states=tuple(_states(swaps, aliases, at, end)),
    )


def _plots(phases: Sequence[Phase], axis: Axis, origin: float, end: float) -> tuple[Plot, ...]:
    width = max(1.0, (end - origin) / _BINS)
    edges = np.arange(0.0, end - origin + width, width)
    answered = [reply for phase in phases for reply in phase.replies if not reply.error]

    def binned(time: Callable[[Reply], float]) -> list[list[Reply]]:
        bins: list[list[Reply]] = [[] for _ in edges[1:]]
        for reply in answered:
            place = int((time(reply) - origin) / width)
            if 0 <= place < len(bins):
                bins[place].append(reply)
        return bins

    due = binned(lambda reply: reply.due)
    done = binned(lambda reply: reply.done)
    middles = [axis.at(float(edge) + width / 2) for edge in edges[1:]]

    def point(share: float, value: Callable[[Reply], float | None]) -> list[float | None]:
        found = [[v for v in map(value, replies) if v is not None] for replies in due]
        return [float(np.percentile(each, share)) if each else None for each in found]

    rates: list[float | None] = [len(replies) / width for replies in done]
    latencies: dict[tuple[str, str], Callable[[Reply], float | None]] = {
        ("first", "First token"): lambda reply: reply.first_seconds,
        ("whole", "Whole answer"): lambda reply: reply.whole_seconds,
    }
    return (
        *(
            _plot(
                (name, f"{title} after the request was due", "seconds"),
                middles,
                {"median": point(50, value), "95th percentile": point(95, value)},
            )
            for (name, title), value in latencies.items()
        ),
        _plot(("rate", "Answers", "a second"), middles, {"answers a second": rates}),
    )


def _plot(
    head: tuple[str, str, str], at: Sequence[float], values: dict[str, list[float | None]]
) -> Plot:
    highest = max((v for line in values.values() for v in line if v is not None), default=1.0)
    scale = axis_of(0.0, highest)

    def height(value: float) -> float:
        return round(_TOP + (HEIGHT - _TOP - _BOTTOM) * (1.0 - value / scale.high), 2)

    steps = np.linspace(scale.low, scale.high, len(scale.ticks))
    return Plot(
        *head,
        rungs=tuple(
            Tick(height(float(step)), tick.text)
            for step, tick in zip(steps, scale.ticks, strict=True)
        ),
        lines=tuple(
            Line(name, colour, tuple(_pieces(at, line, height)))
            for colour, (name, line) in enumerate(values.items(), 1)
        ),
        summary=", ".join(_range(name, line) for name, line in values.items()),
    )


def _range(name: str, values: Sequence[float | None]) -> str:
    """`median 0.02 to 0.31`."""
    known = [value for value in values if value is not None]
    return f"{name} {plain(min(known))} to {plain(max(known))}" if known else f"{name} not measured"


def _pieces(
    at: Sequence[float], values: Sequence[float | None], height: Callable[[float], float]
) -> Iterable[str]:
    points = zip(at, values, strict=True)
    for measured, piece in groupby(points, key=lambda point: point[1] is not None):
        if measured:
            yield " ".join(f"{x:.3f},{height(y)}" for x, y in piece if y is not None)


def _states(
    swaps: Sequence[Swap], aliases: Sequence[str], at: Callable[[float], float], end: float
) -> Iterable[Band]:
    """Each swap: the states of its new adapter, then draining and serving."""
    rows = {alias: index * ROW for index, alias in enumerate(aliases)}
    for swap in swaps:
        marks = [("pending", swap.started), *swap.states]
        if swap.removed is not None and swap.moved is not None:
            marks += [("draining", swap.moved), ("serving", swap.removed)]
        elif swap.error:
            marks += [("failed", marks[-1][1])]
        last = next(
            (s.started for s in swaps if s.alias == swap.alias and s.started > swap.started), end
        )
        for (state, since), (_, until) in pairwise([*marks, ("", last)]):
            yield Band(
                at(since),
                max(at(until) - at(since), 0.0),
                state,
                f"{swap.alias}: {swap.new[:40]} {state}"
                + (f": {swap.error}" if swap.error else ""),
                rows[swap.alias],
            )
