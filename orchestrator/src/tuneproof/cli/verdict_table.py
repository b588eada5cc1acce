"""The end of a study on the terminal: warnings, verdicts, headline, counts."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tuneproof.analysis import (
    WORD_OVERLAP,
    Comparison,
    Comparisons,
    means_by_cell,
    repeats_by_cell,
)
from tuneproof.report import findings, headline, warnings
from tuneproof.report.caveats import judged_grades, unscored_in
from tuneproof.report.costs import ANSWERS, CostRow, cost_note, cost_rows
from tuneproof.report.forgetting import ForgettingRow, forgetting_rows
from tuneproof.report.numbers import confidence, decimals_of, interval_text, plain, signed
from tuneproof.report.support import support_rows
from tuneproof.results import StudyResults


def show_outcome(results: StudyResults, comparisons: Comparisons, console: Console) -> None:
    """Prints headline, warnings, verdict table and counts."""
    for line in warnings(results, comparisons):
        text = f"{line.kind.capitalize()}: {line.text}"
        console.print(text, markup=False, style="yellow", soft_wrap=True)
    console.print(verdict_table(results, comparisons))
    for row in support_rows(results, comparisons):
        for kind, text in row.lines:
            if kind == "anchored":
                said = f"{row.label}, {row.measure}, {kind}: {text}"
                console.print(said, markup=False, soft_wrap=True)
    if rows := cost_rows(results):
        console.print(cost_table(rows, priced=results.prices is not None))
        console.print(cost_note(results), markup=False, soft_wrap=True)
    if changes := forgetting_rows(results):
        console.print(forgetting_table(changes))
    console.print(headline(findings(results, comparisons)), markup=False, soft_wrap=True)
    for text in counts_of(results):
        console.print(text, markup=False)


def counts_of(results: StudyResults) -> Iterator[str]:
    """Answers and grades, and how many are missing."""
    answered = sum(bool(answer.served_by) for answer in results.answers)
    failed = sum(bool(answer.error) for answer in results.answers)
    grades = judged_grades(results)
    yield f"{answered} answers of {len(results.answers)}; {failed} with an error"
    if grades:
        yield f"{len(grades)} judged scores; {unscored_in(grades)} unscored"
    for cell, repeats in repeats_by_cell(results).items():
        unscored = unscored_in(judged_grades(results, cell))
        if unscored or repeats.lost:
            lost = f"{repeats.lost:,} of {repeats.asked:,} repeats lost"
            yield f"  {cell}: {unscored} unscored, {lost}"
    for reader in results.reader_checks:
        of = f" {reader.model}" if len(results.models) > 1 else ""
        yield (
            f"reader{of} alone, evidence among {reader.facts} facts: exact match"
            f" {reader.exact_match:.2f} over {reader.items} questions"
        )
    exact = means_by_cell(results).get(results.baseline, {}).get("exact_match")
    if exact and exact.mean is not None:
        yield f"baseline with retrieved passages: exact match {exact.mean:.2f}"
    for judge in results.judge_checks:
        yield (
            f"judge on {judge.forms} known scores, {judge.criterion}: exact {judge.exact:.2f},"
            f" weighted kappa {judge.weighted_kappa:.2f}, {judge.unscored} unscored"
        )


def verdict_table(results: StudyResults, comparisons: Comparisons) -> Table:
    """One row for each primary comparison."""
    labels = {cell.name: cell.label for cell in results.cells}
    by = {one.by for one in comparisons.primary}
    title = (
        f"{results.name}: verdicts by {' and '.join(sorted(by)) or 'nobody'}"
        f" ({confidence(comparisons.confidence)} together, {comparisons.adjustment})"
    )
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("cell", overflow="fold")
    table.add_column("measure", overflow="fold", min_width=12)
    for name in ("baseline", "mean", "difference", "interval"):
        table.add_column(name, justify="right")
    table.add_column("verdict", overflow="fold", min_width=len("equivalent"))
    for found in comparisons.primary:
        decimals = decimals_of(found)
        table.add_row(
            labels.get(found.cell, found.cell),
            found.measure,
            plain(found.mean_against, decimals),
            plain(found.mean, decimals),
            signed(found.difference, decimals),
            interval_text(found),
            _verdict(found, mixed=len(by) > 1),
        )
    return table


def cost_table(rows: tuple[CostRow, ...], *, priced: bool) -> Table:
    """One row for each cell: what an answer takes."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("cell", overflow="fold")
    for name in ("prompt tokens", "answer tokens", "first token", "alone"):
        table.add_column(name, justify="right")
    if priced:
        table.add_column(f"{ANSWERS:,} answers", justify="right")
    for row in rows:
        figures = [row.prompt_tokens, row.completion_tokens, row.first_token, row.seconds]
        table.add_row(row.label, *figures, *([row.price] if priced else []))
    return table


def forgetting_table(rows: tuple[ForgettingRow, ...]) -> Table:
    """One row for each tuned cell and task."""
    table = Table(title="lm-eval, before and after", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("cell", "task", "metric"):
        table.add_column(name, overflow="fold")
    for name in ("before", "after", "difference", "±"):
        table.add_column(name, justify="right")
    for row in rows:
        scores = row.before, row.after, row.difference, row.error
        table.add_row(row.label, row.task, row.metric, *scores)
    return table


def _verdict(found: Comparison, *, mixed: bool) -> str:
    """The verdict; beside verdicts of a judge, one by word overlap says so."""
    return f"{found.words}, by {found.by}" if mixed and found.by == WORD_OVERLAP else found.words
