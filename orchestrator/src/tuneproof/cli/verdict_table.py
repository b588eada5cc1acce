"""The end of a study on the terminal: verdicts, counts, warnings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tuneproof.results import StudyResults

if TYPE_CHECKING:
    from tuneproof.analysis import Comparison, Comparisons

TOY_WARNING = (
    "The model ships with the project to show the mechanism: the figures are no evidence about"
    " real models."
)


def show_outcome(results: StudyResults, comparisons: Comparisons, console: Console) -> None:
    """Prints the verdict table with its warnings and counts."""
    for line in warnings_of(results):
        console.print(f"Note: {line}", markup=False, style="yellow")
    console.print(verdict_table(results, comparisons))
    for line in counts_of(results):
        console.print(line, markup=False)


def warnings_of(results: StudyResults) -> Iterator[str]:
    """What a reader must know before the figures."""
    if results.toy_model:
        yield TOY_WARNING
    if not results.judge_model:
        yield "No judge was asked: the scores are lexical only."
    elif results.self_judged:
        yield "The judge is the base model under test."
    if results.gold_only:
        yield "The corpus holds gold texts only, so retrieval is easier than in earnest."
    yield from results.notes


def counts_of(results: StudyResults) -> Iterator[str]:
    """Answers and grades, and what is missing of them."""
    answered = sum(bool(answer.served_by) for answer in results.answers)
    failed = sum(bool(answer.error) for answer in results.answers)
    scores = [
        score
        for answer in results.answers
        if answer.grade
        for score in answer.grade.criteria.values()
    ]
    unscored = sum(score.mean is None for score in scores)
    yield f"{answered} answers of {len(results.answers)}; {failed} with an error"
    if scores:
        yield f"{len(scores)} judged scores; {unscored} unscored"
    for reader in results.reader_checks:
        yield (
            f"reader alone, evidence among {reader.facts} facts: exact match"
            f" {reader.exact_match:.2f} over {reader.items} questions"
        )
    if exact := _exact_match(results):
        yield f"baseline with what retrieval brings: exact match {exact:.2f}"
    for judge in results.judge_checks:
        yield (
            f"judge on {judge.forms} known forms, {judge.criterion}: exact {judge.exact:.2f},"
            f" weighted kappa {judge.weighted_kappa:.2f}, {judge.unscored} unscored"
        )


def verdict_table(results: StudyResults, comparisons: Comparisons) -> Table:
    """One row for each primary comparison."""
    labels = {cell.name: cell.label for cell in results.cells}
    percent = f"{100 * comparisons.confidence:g} %"
    table = Table(title=f"{results.name}: verdicts ({percent} simultaneous intervals)")
    for name in ("cell", "measure", "baseline", "cell mean", "difference", "interval", "verdict"):
        table.add_column(
            name, justify="left" if name in {"cell", "measure", "verdict"} else "right"
        )
    for found in comparisons.primary:
        table.add_row(
            labels.get(found.cell, found.cell),
            found.measure,
            _number(found.mean_against),
            _number(found.mean),
            _number(found.difference, sign=True),
            _interval(found),
            found.words,
        )
    return table


def _exact_match(results: StudyResults) -> float | None:
    scores = [
        answer.grade.lexical["exact_match"]
        for answer in results.answers
        if answer.cell == results.baseline and answer.grade
    ]
    return sum(scores) / len(scores) if scores else None


def _interval(found: Comparison) -> str:
    if found.interval is None:
        return "none"
    return f"{found.interval.low:+.2f} … {found.interval.high:+.2f}"


def _number(value: float | None, *, sign: bool = False) -> str:
    if value is None:
        return "—"
    return f"{value:+.2f}" if sign else f"{value:.2f}"
