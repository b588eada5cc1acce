"""The report for people: one HTML file that loads nothing and needs no server."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tuneproof.analysis import Comparison, Comparisons, means_by_cell, measures_of
from tuneproof.report import numbers
from tuneproof.report.answers import (
    ItemView,
    anchors_of,
    direction_of,
    item_views,
    primary_measures,
    shown_measures,
)
from tuneproof.report.caveats import warnings
from tuneproof.report.document import asset, environment, policy
from tuneproof.report.export import report_json
from tuneproof.report.findings import findings, headline, sentence_of
from tuneproof.report.plots import SCATTER_HEIGHT, forests, scatter, sparkline
from tuneproof.results import Cell, StudyResults

COLOURS = 8
"""Colours and marks in the style sheet; the ninth cell has the first one's again."""

WORST = 3
"""Items that a verdict links to one by one."""


def build_report(results: StudyResults, comparisons: Comparisons) -> str:
    """The whole study as one self-contained HTML document.

    Everything that comes from a model, a document or a file is escaped, and the page's own
    Content-Security-Policy allows its one script and its one style sheet (by their digests) and
    no request at all. The same input gives the same bytes.
    """
    templates = environment("tuneproof.report")
    templates.filters.update(
        plain=numbers.plain,
        signed=numbers.signed,
        percent=numbers.percent,
        phrase=numbers.phrase_of,
        confidence=numbers.confidence,
        duration=numbers.duration,
        measure=numbers.label_of,
        decimals=numbers.decimals_of,
        interval=numbers.interval_text,
        margin=numbers.margin_text,
        value=_value,
        json=_json,
    )
    style, script = asset("page.css"), asset("page.js")
    items, measures = item_views(results), measures_of(results)
    return templates.get_template("page.html.j2").render(
        study=results,
        comparisons=comparisons,
        items=items,
        headline=headline(findings(results, comparisons)),
        findings=findings(results, comparisons),
        warnings=warnings(results, comparisons),
        counts={one: _counts(results, items, one) for one in comparisons.primary},
        measures=measures,
        sentence_of=sentence_of,
        primary_measures=primary_measures(results),
        shown_measures=shown_measures(results, measures),
        means=means_by_cell(results),
        facts={cell["name"]: cell for cell in report_json(results, comparisons)["cells"]},
        labels={cell.name: cell.label for cell in results.cells},
        places={cell.name: place % COLOURS for place, cell in enumerate(results.cells)},
        anchors=anchors_of(results.items),
        clusters=sorted({item.cluster for item in results.items}),
        repeats=_repeats(results),
        forests=forests(results, comparisons),
        scatter=scatter(results),
        scatter_height=SCATTER_HEIGHT,
        trained=[(cell, _spark(cell)) for cell in results.cells if cell.training is not None],
        colours=COLOURS,
        style=style,
        script=script,
        policy=policy(style, script),
    )


def _counts(
    results: StudyResults, items: tuple[ItemView, ...], one: Comparison
) -> Mapping[str, object]:
    """How many items a cell lost and gained by more than δ, and the largest losses."""
    margin = results.margin.get(one.measure, 0.0)
    changes = [(item.differences.get(one.cell, {}).get(one.measure), item) for item in items]
    directions = [direction_of(change, margin) for change, _ in changes]
    lost = sorted(
        ((change, item) for change, item in changes if change is not None and change < -margin),
        key=lambda pair: pair[0],
    )
    return {
        "items": len(items),
        "worse": directions.count("worse"),
        "better": directions.count("better"),
        "worst": [item for _, item in lost[:WORST]],
    }


def _repeats(results: StudyResults) -> int:
    return max(
        (
            len(score.repeats)
            for answer in results.answers
            if answer.grade is not None
            for score in answer.grade.criteria.values()
        ),
        default=0,
    )


def _spark(cell: Cell) -> str:
    return sparkline(cell.training.losses) if cell.training else ""


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(dict(value), ensure_ascii=False, sort_keys=True)


def _value(value: object) -> str:
    """A setting as text: words as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
