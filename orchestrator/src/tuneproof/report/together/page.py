"""The page of several studies, and the same for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from tuneproof.report.caveats import warnings
from tuneproof.report.document import asset, policy
from tuneproof.report.dose import HEIGHT, DoseResponse, dose_response
from tuneproof.report.export import report_json
from tuneproof.report.findings import findings, headline
from tuneproof.report.page import COLOURS, templates
from tuneproof.report.together.over import (
    Over,
    Part,
    headline_of,
    names_of,
    over_sets,
    shown_of,
)

SCHEMA = "tuneproof.reports/1"
"""Changes as that of a single report."""

_STYLES = ("palette.css", "page.css", "questions.css")
_SCRIPTS = ("theme.js",)
_JSON: TypeAdapter[Over] = TypeAdapter(Over)


@dataclass(frozen=True, slots=True)
class _Section:
    """One data set on the page."""

    name: str
    part: Part
    headline: str
    clusters: int
    labels: Mapping[str, str]
    """Of its cells."""
    dose: DoseResponse | None


def build_joint_report(parts: Sequence[Part]) -> str:
    """Several studies as one self-contained HTML document; it links to each study's own report.

    It is escaped and guarded as a single report is. The same input gives the same bytes.
    """
    style, script = "".join(map(asset, _STYLES)), "".join(map(asset, _SCRIPTS))
    sections = _sections(parts)
    cautions, notes = (_shared_caveats(parts, kind) for kind in ("caution", "note"))
    return (
        templates()
        .get_template("together.html.j2")
        .render(
            headline=headline_of(parts),
            sections=sections,
            over=over_sets(parts),
            cautions=cautions,
            notes=notes,
            colours=COLOURS,
            dose_height=HEIGHT,
            style=style,
            script=script,
            policy=policy(style, script),
        )
    )


def joint_json(parts: Sequence[Part]) -> dict[str, Any]:
    """Several studies as JSON values: `schema`; `headline`; `studies` (by the data set's name, each
    as `report_json` has it); `questions` (measures, and helps, sizes and models: title, asks,
    lines, and sets: dataset, question, rows)."""
    return {
        "schema": SCHEMA,
        "headline": headline_of(parts),
        "studies": {
            name: report_json(part.results, part.comparisons)
            for name, part in zip(names_of(parts), parts, strict=True)
        },
        "questions": _JSON.dump_python(over_sets(parts), mode="json"),
    }


def _sections(parts: Sequence[Part]) -> list[_Section]:
    # One arm has one colour in all data sets.
    arms = list(dict.fromkeys(cell.arm for part in parts for cell in part.results.cells))
    found = []
    for name, part in zip(names_of(parts), parts, strict=True):
        results, comparisons = part.results, part.comparisons
        colours = {cell.name: arms.index(cell.arm) % COLOURS for cell in results.cells}
        found.append(
            _Section(
                name,
                part,
                headline(findings(results, comparisons)),
                len({item.cluster for item in results.items}),
                {cell.name: cell.label for cell in results.cells},
                dose_response(results, comparisons, shown_of(part), colours),
            )
        )
    return found


def _shared_caveats(parts: Sequence[Part], kind: str) -> list[tuple[str, tuple[str, ...]]]:
    """Each caveat once, with the data sets that it holds for; none named where it holds for all."""
    names = names_of(parts)
    by_text: dict[str, list[str]] = {}
    for name, part in zip(names, parts, strict=True):
        for caveat in dict.fromkeys(warnings(part.results, part.comparisons)):
            if caveat.kind == kind:
                by_text.setdefault(caveat.text, []).append(name)
    return [
        (text, () if len(held) == len(names) else tuple(held)) for text, held in by_text.items()
    ]
