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
from tuneproof.report.caveats import judged_grades, warnings
from tuneproof.report.costs import cost_note, cost_rows
from tuneproof.report.document import asset, environment, policy
from tuneproof.report.export import report_json
from tuneproof.report.findings import findings, headline, sentence_of
from tuneproof.report.forgetting import forgetting_rows
from tuneproof.report.plots import SCATTER_HEIGHT, forests, scatter, sparkline
from tuneproof.results import StudyResults

COLOURS = 8
"""Colours and marks in the style sheet; the ninth cell takes the first one again."""

WORST = 3
"""Most items that a verdict links to."""


def build_report(results: StudyResults, comparisons: Comparisons) -> str:
    """The whole study as one self-contained HTML document.

    Text from a model, a document or a file is escaped. The page's Content-Security-Policy allows
    one script and one style sheet by their digests, and no request at all. The same input gives
    the same bytes.
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
    found = findings(results, comparisons)
    return templates.get_template("page.html.j2").render(
        study=results,
        comparisons=comparisons,
        items=items,
        headline=headline(found),
        findings=found,
        warnings=warnings(results, comparisons),
        counts={one: _counts(results, items, one) for one in comparisons.primary},
        measures=measures,
        sentence_of=sentence_of,
        primary_measures=primary_measures(results),
        shown_measures=shown_measures(results, measures),
        means=means_by_cell(results),
        costs={row.cell: row for row in cost_rows(results)},
        cost_note=cost_note(results),
        forgetting=forgetting_rows(results),
        facts={cell["name"]: cell for cell in report_json(results, comparisons)["cells"]},
        labels={cell.name: cell.label for cell in results.cells},
        places={cell.name: place % COLOURS for place, cell in enumerate(results.cells)},
        anchors=anchors_of(results.items),
        clusters=sorted({item.cluster for item in results.items}),
        repeats=max((len(each.repeats) for each in judged_grades(results)), default=0),
        forests=forests(results, comparisons),
        scatter=scatter(results),
        scatter_height=SCATTER_HEIGHT,
        trained=[
            (cell, sparkline(cell.training.losses))
            for cell in results.cells
            if cell.training is not None
        ],
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
    changes = [(view.differences.get(one.cell, {}).get(one.measure), view) for view in items]
    directions = [direction_of(change, margin) for change, _ in changes]
    lost = sorted(
        ((change, view) for change, view in changes if change is not None and change < -margin),
        key=lambda pair: pair[0],
    )
    return {
        "items": len(items),
        "worse": directions.count("worse"),
        "better": directions.count("better"),
        "worst": [view for _, view in lost[:WORST]],
    }


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(dict(value), ensure_ascii=False, sort_keys=True)


def _value(value: object) -> str:
    """A setting as text: words as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
