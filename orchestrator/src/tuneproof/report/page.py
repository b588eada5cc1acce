"""The report for people: one HTML file that loads nothing and needs no server."""

from __future__ import annotations

import json
from collections.abc import Mapping

from jinja2 import Environment

from tuneproof.analysis import (
    RULES,
    Comparison,
    Comparisons,
    ItemWords,
    against_of,
    answers_by_cell,
    failure_counts,
    failures_by_cell,
    means_by_cell,
    measures_of,
    splits_of,
)
from tuneproof.report import numbers, splits
from tuneproof.report.answers import (
    STRATA_WORDS,
    Answers,
    answers_of,
    difference_of,
    direction_of,
    primary_measures,
    shown_measures,
)
from tuneproof.report.caveats import judged_grades, warnings
from tuneproof.report.costs import cost_note, cost_rows
from tuneproof.report.document import asset, environment, policy
from tuneproof.report.dose import HEIGHT, dose_response
from tuneproof.report.export import cell_facts
from tuneproof.report.findings import findings, headline, sentence_of
from tuneproof.report.forgetting import forgetting_rows
from tuneproof.report.plots import SCATTER_HEIGHT, forests, scatter, sparkline
from tuneproof.report.questions import questions_of
from tuneproof.report.support import (
    agreement_lines,
    contrast_rows,
    preference_rows,
    seed_rows,
    support_rows,
)
from tuneproof.results import Answer, Cell, StudyResults

COLOURS = 8
"""Colours and marks in the style sheet; the ninth takes the first one again."""

WORST = 3
"""Most items that a verdict links to."""

STYLES = ("palette.css", "page.css", "questions.css", "answers.css")
SCRIPTS = ("theme.js", "unpack.js", "item.js", "list.js")


def build_report(results: StudyResults, comparisons: Comparisons) -> str:
    """The whole study as one self-contained HTML document.

    Text from a model, a document or a file is escaped. The page's Content-Security-Policy allows
    one script and one style sheet by their digests, and no request at all. The same input gives
    the same bytes.
    """
    style = "".join(map(asset, STYLES))
    script = "".join(map(asset, SCRIPTS))
    measures, against = measures_of(results), against_of(results)
    colours = colours_of(results)
    read = ItemWords.of_study(results)
    failures = failures_by_cell(results, read)
    answers = answers_of(results, measures, against, colours, failures)
    given, found = answers_by_cell(results), findings(results, comparisons)
    shown = shown_measures(results, measures)
    split = splits_of(results, shown, against, read)
    return (
        templates()
        .get_template("page.html.j2")
        .render(
            study=results,
            comparisons=comparisons,
            against=against,
            answers=answers,
            headline=headline(found),
            findings=found,
            warnings=warnings(results, comparisons),
            counts={one: _counts(results, given, answers, one) for one in comparisons.primary},
            support=support_rows(results, comparisons),
            agreement=list(agreement_lines(results)),
            seeds=seed_rows(results, comparisons),
            contrasts=contrast_rows(results),
            preferences=preference_rows(results),
            measures=measures,
            sentence_of=sentence_of,
            primary_measures=primary_measures(results),
            shown_measures=shown,
            means=means_by_cell(results),
            facts={cell["name"]: cell for cell in cell_facts(results)},
            costs={row.cell: row for row in cost_rows(results)},
            cost_note=cost_note(results),
            forgetting=forgetting_rows(results),
            labels={cell.name: cell.label for cell in results.cells},
            numbers={cell.name: place for place, cell in enumerate(results.cells)},
            places=colours,
            colours=COLOURS,
            hues=[colours[cell.name] for cell in results.cells],
            clusters=len({item.cluster for item in results.items}),
            repeats=max((len(each.repeats) for each in judged_grades(results)), default=0),
            forests=forests(results, comparisons),
            scatter=scatter(results),
            legend=_legend(results),
            scatter_height=SCATTER_HEIGHT,
            questions=questions_of(results, comparisons, shown),
            dose=dose_response(results, comparisons, shown, colours),
            dose_height=HEIGHT,
            splits=[(one, splits.split_rows(results, one)) for one in split],
            split_titles=splits.TITLES,
            source_lines=splits.source_lines(results, split),
            rules=RULES,
            failures=failure_counts(failures),
            strata_words=STRATA_WORDS,
            trained=[
                (cell, sparkline(cell.training.losses))
                for cell in results.cells
                if cell.training is not None
            ],
            style=style,
            script=script,
            policy=policy(style, script),
        )
    )


def templates() -> Environment:
    """The report's templates, with the filters that they use."""
    found = environment("tuneproof.report")
    found.filters.update(
        plain=numbers.plain,
        signed=numbers.signed,
        percent=numbers.percent,
        phrase=numbers.phrase_of,
        confidence=numbers.confidence,
        shared=numbers.shared,
        duration=numbers.duration,
        measure=numbers.label_of,
        decimals=numbers.decimals_of,
        interval=numbers.interval_text,
        margin=numbers.margin_text,
        change_interval=splits.interval_of_change,
        reading=splits.reading_of,
        value=_value,
    )
    return found


def colours_of(results: StudyResults) -> Mapping[str, int]:
    """A colour for each cell; in a study of more cells than colours, for each arm."""
    if len(results.cells) <= COLOURS:
        return {cell.name: place for place, cell in enumerate(results.cells)}
    arms = list(dict.fromkeys(cell.arm for cell in results.cells))
    return {cell.name: arms.index(cell.arm) % COLOURS for cell in results.cells}


def _legend(results: StudyResults) -> tuple[tuple[Cell, str], ...]:
    """A cell of each colour, and what has it."""
    if len(results.cells) <= COLOURS:
        return tuple((cell, cell.label) for cell in results.cells)
    by_arm = {cell.arm: cell for cell in reversed(results.cells)}
    return tuple((cell, arm) for arm, cell in reversed(by_arm.items()))


def _counts(
    results: StudyResults,
    given: Mapping[str, Mapping[str, Answer]],
    answers: Answers,
    one: Comparison,
) -> Mapping[str, object]:
    """How many items a cell lost and gained by more than δ, and the largest losses."""
    margin = results.margin.get(one.measure, 0.0)
    mine, theirs = given[one.cell], given[one.against]
    changes = [
        (difference_of(mine.get(item.id), theirs.get(item.id), one.measure), item)
        for item in answers.order
    ]
    directions = [direction_of(change, margin) for change, _ in changes]
    lost = sorted(
        ((change, item) for change, item in changes if change is not None and change < -margin),
        key=lambda pair: pair[0],
    )
    return {
        "items": len(answers.order),
        "worse": directions.count("worse"),
        "better": directions.count("better"),
        "worst": [item for _, item in lost[:WORST]],
    }


def _value(value: object) -> str:
    """A setting as text: words as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
