"""Figures with their intervals on the terminal: a table, and a chart on one axis."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from tuneproof.cli.console import out
from tuneproof.corpora.comparing import Figure, Side, SideBySide
from tuneproof.corpora.measuring import NDCG

_COLUMNS = 50


def show(found: SideBySide) -> None:
    """Prints means, a chart of nDCG@10, and the differences from the first configuration."""
    first = found.sides[0]
    out.print(_means(found.sides), markup=False)
    out.print()
    for line in chart([(side.name, side.figures[NDCG]) for side in found.sides], NDCG):
        out.print(line, markup=False)
    if len(found.sides) > 1:
        out.print(f"\ndifference from {first.name}, paired by question", markup=False)
        table = Table("", *first.figures, box=None)
        for side in found.sides[1:]:
            table.add_row(side.name, *(_text(each, sign="+") for each in side.differences.values()))
        out.print(table, markup=False)


def chart(rows: Sequence[tuple[str, Figure]], title: str) -> list[str]:
    """A line for each figure: its point, and its interval as a bar, from 0 to 1."""
    width = max(len(title), *(len(name) for name, _ in rows))
    lines = [f"{title:<{width}}  0{'1':>{_COLUMNS}}"]
    for name, figure in rows:
        cells = ["\u00b7"] * (_COLUMNS + 1)
        if figure.low is not None and figure.high is not None:
            for at in range(_place(figure.low), _place(figure.high) + 1):
                cells[at] = "\u2500"
        cells[_place(figure.mean)] = "\u25cf"
        lines.append(f"{name:<{width}}  {''.join(cells)} {figure.mean:.3f}")
    return lines


def _place(value: float) -> int:
    return round(min(max(value, 0.0), 1.0) * _COLUMNS)


def _means(sides: Sequence[Side]) -> Table:
    table = Table("", *sides[0].figures, box=None)
    for side in sides:
        table.add_row(side.name, *(_text(each) for each in side.figures.values()))
    return table


def _text(figure: Figure, *, sign: str = "") -> str:
    """`0.812 of 0.930 [0.781, 0.843]`."""
    of = f" of {figure.ceiling:.3f}" if figure.ceiling is not None else ""
    if figure.low is None or figure.high is None:
        return f"{figure.mean:{sign}.3f}{of}"
    return f"{figure.mean:{sign}.3f}{of} [{figure.low:{sign}.3f}, {figure.high:{sign}.3f}]"
