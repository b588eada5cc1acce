"""What an answer of each cell takes, as people read it: on the terminal and in the report."""

from __future__ import annotations

from dataclasses import dataclass

from tuneproof.analysis.costs import CellCost, costs_by_cell
from tuneproof.report.numbers import NONE, duration, percent
from tuneproof.results import StudyResults

ANSWERS = 1000
"""Answers to which a price is shown."""


@dataclass(frozen=True, slots=True)
class CostRow:
    """One cell's row, formatted; a dash where nothing is known."""

    cell: str
    label: str
    prompt_tokens: str
    completion_tokens: str
    first_token: str
    seconds: str
    """Of an answer that was asked alone."""
    cached: str
    """Share of these prompts' tokens that the prefix cache spared."""
    price: str
    """Of `ANSWERS` answers."""


def cost_rows(results: StudyResults) -> tuple[CostRow, ...]:
    """A row for each cell; none where nothing was timed or priced."""
    found = costs_by_cell(results)
    if not any(each.alone or each.price is not None for each in found.values()):
        return ()
    currency = results.prices.currency if results.prices else ""
    return tuple(_row(found[cell.name], cell.name, cell.label, currency) for cell in results.cells)


def cost_note(results: StudyResults) -> str:
    """What the figures mean, in sentences; empty where there are none."""
    found = costs_by_cell(results).values()
    timed = max((each.alone.answers for each in found if each.alone), default=0)
    said = []
    if timed:
        said.append(f"Times: means of {timed} answers of each cell, asked one at a time.")
    if any(each.by == "gpu" for each in found):
        said.append(
            "Prices are of the GPU time that one answer takes alone; in a batch several share it."
        )
    if any(each.by == "tokens" for each in found):
        said.append("Prices are of the tokens.")
    return " ".join(said)


def _row(cost: CellCost, cell: str, label: str, currency: str) -> CostRow:
    alone = cost.alone
    price = NONE
    if cost.price is not None:
        price = f"{ANSWERS * cost.price:.3g} {currency}"
    return CostRow(
        cell,
        label,
        prompt_tokens=_tokens(cost.prompt_tokens),
        completion_tokens=_tokens(cost.completion_tokens),
        first_token=NONE if alone is None else duration(alone.first_token_seconds),
        seconds=NONE if alone is None else duration(alone.seconds),
        cached=NONE if alone is None else percent(alone.cached_share),
        price=price,
    )


def _tokens(count: float | None) -> str:
    return NONE if count is None else f"{count:,.0f}"
