"""What `tuneproof study plan` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from tuneproof.data.lengths import Tokenizer, open_tokenizer
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.collect import load_results
from tuneproof.study.design.plan import Plan
from tuneproof.study.design.prepare import Prepared, recall
from tuneproof.study.forecast import Forecast, Rates, forecast_of_models, rates_of
from tuneproof.study.opened import chain_of
from tuneproof.study.state.store import FILE_NAME, open_state

if TYPE_CHECKING:
    from tuneproof.analysis.pilots import Pilot


def forecast_of(prepared: Prepared, state: Path) -> tuple[Forecast, str]:
    """The forecast, and why it has no tokens; empty where it has.

    Args:
        state: the folder whose earlier runs tell the rates; it may be absent.
    """
    sources = prepared.sources
    judge = (sources.judge_model or sources.judging.served_name) if prepared.spec.judge else ""
    rates = {base.name: Rates() for base in sources.bases}
    if (state / FILE_NAME).exists():
        with open_state(state, write=False) as results:
            rates = {
                base.name: rates_of(results, base.served_name, Path(judge).name)
                for base in sources.bases
            }
    known, why = {}, ""
    for base in sources.bases:
        tokenizer, reason = _tokenizer(base.model)
        known[base.name] = rates[base.name], tokenizer
        why = why or reason
    primary = len(prepared.plan.named(_measures(prepared)))
    return forecast_of_models(prepared.plan, known, primary), why


def _measures(prepared: Prepared) -> list[str]:
    """One for each rubric, whose criteria a plan does not look up."""
    judge = prepared.spec.judge
    return list(judge.rubrics) if judge is not None else ["token_f1"]


def _tokenizer(model: str) -> tuple[Tokenizer | None, str]:
    if not model:
        return None, "no model is named; see --model"
    try:
        return open_tokenizer(model), ""
    except InvalidInput as error:
        return None, error.message


def plan_json(prepared: Prepared, found: Forecast) -> dict[str, Any]:
    """The plan for machines."""
    plan, served, memory = prepared.plan, prepared.sources.bases[0].served_name, found.memory
    grid = [
        {
            "cell": cell.name,
            "arm": cell.recipe,
            "size": cell.size,
            "seed": cell.seed,
            "tuned": cell.tune is not None,
            "model": cell.model or served,
            **({"memory_gib": memory[cell.name].gib} if cell.name in memory else {}),
        }
        for cell in plan.cells
    ]
    return {**asdict(found), "cells": [cell.name for cell in plan.cells], "grid": grid}


def grid_table(plan: Plan, found: Forecast) -> Table:
    """One row for each arm of each model, of a grid for each combination."""
    several = len(plan.models) > 1
    table = Table(
        *(["model"] if several else []),
        "arm",
        "tuned on",
        "asked with",
        "sizes",
        "seeds",
        box=None,
        pad_edge=False,
    )
    table.add_column("cells", justify="right")
    if found.memory:
        table.add_column("GPU memory", justify="right")
    for model, recipe in dict.fromkeys((cell.model, cell.recipe) for cell in plan.cells):
        cells = [cell for cell in plan.cells if (cell.model, cell.recipe) == (model, recipe)]
        arm = cells[0].arm
        asked = "passages" if arm.context == "retrieved" else "the question alone"
        if arm.imported is not None:
            asked = f"answers in {arm.imported.path.name}"
        if arm.examples is not None:
            asked += f", {arm.examples.k} {arm.examples.choose} examples"
        tuned = ""
        if arm.tune is not None:
            shown = "passages" if arm.tune.context == "retrieved" else "closed book"
            tuned = f"{arm.tune.references}, {'RAFT' if arm.tune.raft else shown}"
        sizes = " ".join(str(size) for size in sorted({cell.size for cell in cells} - {0}))
        seeds = " ".join(str(seed) for seed in sorted({cell.seed for cell in cells if cell.size}))
        row = [recipe, tuned, asked, sizes, seeds, str(len(cells))]
        taken = found.memory.get(cells[0].name)
        row += [f"{taken.gib:,.1f} GiB" if taken else "\N{EN DASH}"] if found.memory else []
        table.add_row(*([model] if several else []), *row)
    return table


def plan_lines(found: Forecast, why_no_tokens: str, currency: str) -> Iterator[str]:
    """Counts, hours, tokens, memory and warnings."""
    for name, count in found.counts.items():
        yield f"{name:<20} {count:,}"
    for stage, hours in found.hours.items():
        rate = "not known: no earlier run here measured it" if hours is None else _time(hours)
        yield f"{'time of ' + stage:<20} {rate}"
    for name, count in found.tokens.items():
        yield f"{'tokens of ' + name:<20} {'at most' if name == 'answers' else 'about'} {count:,}"
    for model, price in found.prices.items():
        yield f"{'price of ' + model:<20} up to about {price:,.2f} {currency}"
    if found.memory:
        largest = max(found.memory.values(), key=lambda taken: taken.total)
        yield f"{'memory of a training':<20} up to about {largest.gib:,.1f} GiB on a GPU"
    if why_no_tokens:
        yield f"tokens and GPU memory are not counted: {why_no_tokens}"
    yield from (f"warning: {text}" for text in found.warnings)


def pilots_in(file: Path, state: Path, data: Path | None) -> tuple[Pilot, ...]:
    """What earlier answers of this study say; nothing where it never ran."""
    if not (state / FILE_NAME).exists():
        return ()
    from tuneproof.analysis import compare  # noqa: PLC0415 - scipy takes long to load
    from tuneproof.analysis.pilots import pilots_of  # noqa: PLC0415

    with open_state(state, write=False) as results_file:
        if recall(results_file, file) is None:
            return ()
        results = load_results(chain_of(file, state, results_file, data))
    return pilots_of(results, compare(results))


def pilot_lines(pilots: Sequence[Pilot]) -> Iterator[str]:
    """What the study's own results say of the next one."""
    for one in pilots:
        variance = one.variance
        told = [f"item SD {variance.item**0.5:.2f}"]
        if variance.repeat is not None:
            told.append(f"repeat SD {variance.repeat**0.5:.2f}")
        if one.correlation is not None:
            told.append(f"correlation within documents {one.correlation:.2f}")
        repeats = (
            f"; {one.best_repeats} repeats pay best (now {one.repeats})" if one.best_repeats else ""
        )
        yield (
            f"pilot {one.cell}, {one.measure}: {', '.join(told)} over {one.items} questions: a new"
            f" study needs {one.for_difference:,} to show a difference of the margin, and"
            f" {one.for_equivalence:,} to show equivalence{repeats}"
        )


def _time(hours: float) -> str:
    return f"about {hours:.1f} h" if hours >= 1 else f"about {60 * hours:.1f} min"
