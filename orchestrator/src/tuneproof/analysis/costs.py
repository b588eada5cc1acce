"""What an answer of each cell takes, beside its quality: tokens, seconds, money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from tuneproof.results import Alone, Cell, Prices, StudyResults

_MILLION = 1_000_000
_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class CellCost:
    """Means over the answers of a cell."""

    prompt_tokens: float | None
    """None where no answer tells its tokens."""
    completion_tokens: float | None
    alone: Alone | None
    """Times of a few answers, asked one at a time; None where none was timed."""
    price: float | None
    """Of one answer, in the currency of the study's prices; None without a price."""
    by: Literal["tokens", "gpu", ""]
    """Priced by tokens, or by the time that the GPUs took alone: more than in a batch."""


def costs_by_cell(results: StudyResults) -> Mapping[str, CellCost]:
    """The cost of every cell."""
    return {cell.name: _cost(results, cell) for cell in results.cells}


def _cost(results: StudyResults, cell: Cell) -> CellCost:
    told = [
        (answer.prompt_tokens, answer.completion_tokens)
        for answer in results.answers
        if answer.cell == cell.name and answer.served_by and answer.prompt_tokens
    ]
    prompt = fmean(prompt for prompt, _ in told) if told else None
    completion = fmean(completion for _, completion in told) if told else None
    price, by = _price(_prices(results, cell), prompt, completion, cell.alone)
    return CellCost(prompt, completion, cell.alone, price, by)


def _prices(results: StudyResults, cell: Cell) -> Prices | None:
    """Those of an API model are its own."""
    model = next((each for each in results.models if each.name == cell.model), None)
    if model is None or not model.is_api or results.prices is None:
        return results.prices
    return Prices(
        results.prices.currency,
        prompt_tokens=model.input_price,
        completion_tokens=model.output_price,
    )


def _price(
    prices: Prices | None, prompt: float | None, completion: float | None, alone: Alone | None
) -> tuple[float | None, Literal["tokens", "gpu", ""]]:
    if prices is None:
        return None, ""
    if prices.prompt_tokens is not None and prices.completion_tokens is not None:
        if prompt is None or completion is None:
            return None, ""
        paid = prompt * prices.prompt_tokens + completion * prices.completion_tokens
        return paid / _MILLION, "tokens"
    if prices.gpu_hour is not None and alone is not None:
        return prices.gpu_hour * alone.seconds / _HOUR, "gpu"
    return None, ""
