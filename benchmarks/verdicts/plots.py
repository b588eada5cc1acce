"""Draws the plots of docs/statistics.md from the bench's figures.

python benchmarks/verdicts/run.py --out figures.json
python benchmarks/verdicts/plots.py figures.json docs
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

Figures = Mapping[str, float]

ROW, LABELS, PANEL, GAP, HEAD, FOOT = 17, 205, 265, 28, 46, 34
COLOURS = ("#0b6e99", "#c2571a", "#6b6b6b")
STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#222}.title{font-weight:600}"
    ".grid{stroke:#ddd}.bound{stroke:#222;stroke-dasharray:3 3}"
)


@dataclass(frozen=True)
class Panel:
    """Dots over one axis, a row for each label."""

    title: str
    low: float
    high: float
    ticks: Sequence[float]
    bound: float | None
    series: Sequence[tuple[str, Sequence[float | None]]]
    """Name, and a value for each row; None is left out."""


def draw(labels: Sequence[str], panels: Sequence[Panel], says: str) -> str:
    """An SVG with the panels side by side."""
    height = HEAD + ROW * len(labels) + FOOT
    width = LABELS + (PANEL + GAP) * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(says)}</title><style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for row, label in enumerate(labels):
        parts.append(_text(LABELS - 8, HEAD + ROW * row + 12, label, "end"))
    for place, panel in enumerate(panels):
        parts += _panel(panel, LABELS + (PANEL + GAP) * place, len(labels))
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel, left: int, rows: int) -> list[str]:
    bottom = HEAD + ROW * rows

    def at(value: float) -> float:
        share = (value - panel.low) / (panel.high - panel.low)
        return round(left + PANEL * min(max(share, 0.0), 1.0), 1)

    parts = [_text(left, 14, panel.title, "start", "title")]
    for tick in panel.ticks:
        parts.append(_line(at(tick), bottom, "grid"))
        parts.append(_text(at(tick), bottom + 14, f"{tick:g}", "middle"))
    if panel.bound is not None:
        parts.append(_line(at(panel.bound), bottom, "bound"))
    for number, (name, values) in enumerate(panel.series):
        parts.append(_dot(left + 5 + 88 * number, 28, number))
        parts.append(_text(left + 13 + 88 * number, 32, name, "start"))
        parts += [
            _dot(at(value), HEAD + ROW * row + 8, number)
            for row, value in enumerate(values)
            if value is not None
        ]
    return parts


def _dot(x: float, y: float, series: int) -> str:
    colour = COLOURS[series]
    if series == 1:
        return f'<rect x="{x - 4}" y="{y - 4}" width="8" height="8" fill="{colour}"/>'
    if series == 2:
        return f'<path d="M{x} {y - 5}l5 9h-10z" fill="{colour}"/>'
    return f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"/>'


def _line(x: float, bottom: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x}" x2="{x}" y1="{HEAD - 4}" y2="{bottom}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    marked = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{marked}>{escape(text)}</text>'


def intervals(settings: Figures) -> str:
    """S1: coverage and width by setting."""
    rows = dict.fromkeys(key.rsplit("/", 2)[0] for key in settings if key.startswith("s1/"))

    def series(figure: str) -> list[tuple[str, list[float | None]]]:
        return [
            (name, [settings.get(f"{row}/{name}/{figure}") for row in rows])
            for name in ("correlation 0", "correlation 0.4")
        ]

    labels = [", ".join(row.split("/")[1:]) for row in rows]
    ticks = (0.9, 0.93, 0.95, 1.0), (0.5, 0.75, 1.0, 1.1)
    panels = [
        Panel("Coverage of 95 % intervals", 0.9, 1.0, ticks[0], 0.93, series("coverage")),
        Panel("Width by a t interval's", 0.5, 1.2, ticks[1], 1.1, series("width")),
    ]
    says = "Coverage and width of intervals by number and sizes of clusters; 70 % of items are ties"
    return draw(labels, panels, says)


def people(settings: Figures) -> str:
    """S4: coverage of the difference by people, by pair of systems."""
    pairs = dict.fromkeys(key.rsplit("/", 1)[0] for key in settings if key.startswith("s4/"))
    kinds = ("50 labels", "100 labels", "the judge alone")
    series = [(kind, [settings.get(f"{pair}/{kind}") for pair in pairs]) for kind in kinds]
    return draw(
        [pair.split("/")[1] for pair in pairs],
        [Panel("Coverage of the difference by people", 0.0, 1.0, (0.0, 0.5, 0.93), 0.93, series)],
        "Coverage of the difference by people, anchored in labels and by the judge alone",
    )


ERRORS = (
    ("gate, an arm at −δ by rare losses", "s3_before", "s3_max", 0.025),  # noqa: RUF001
    ("four looks, no difference", "s6_before", "s6_max", 0.05),
)


def errors(results: Figures) -> str:
    """S3 and S6: false words, before and now."""
    series = [
        ("before", [results.get(before) for _, before, _, _ in ERRORS]),
        ("now", [results.get(now) for _, _, now, _ in ERRORS]),
        ("at most", [most for *_, most in ERRORS]),
    ]
    labels = [name for name, *_ in ERRORS]
    panel = Panel(
        "Share of studies with a false word", 0.0, 0.2, (0.0, 0.05, 0.1, 0.2), None, series
    )
    return draw(labels, [panel], "False words by the methods of before and by those of now")


def main() -> int:
    """Writes three files."""
    figures, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    made = {
        "intervals": intervals(figures["settings"]),
        "people": people(figures["settings"]),
        "errors": errors(figures["results"]),
    }
    for name, content in made.items():
        (folder / f"statistics-{name}.svg").write_text(content, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
