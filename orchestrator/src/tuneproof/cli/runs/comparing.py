"""`tuneproof runs compare`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tuneproof.cli.asking import AskedTrainer
from tuneproof.cli.console import out
from tuneproof.cli.options import takes_options
from tuneproof.cli.runs.completing import complete_run_ids
from tuneproof.cli.runs.curves import Curve, chart
from tuneproof.cli.runs.drawing import draw
from tuneproof.cli.runs.figures import differing, figures_of, short_ref, smoothed, words_of
from tuneproof.cli.runs.tables import columns, json_of, lasting
from tuneproof.sdk import RunInfo, TrainerClient
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.files import write_atomically


@takes_options
def compare_command(
    asked: AskedTrainer,
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Ids of two or more runs.", autocompletion=complete_run_ids
        ),
    ],
    *,
    validation: Annotated[
        bool, typer.Option(help="Plot the validation losses instead of the training's.")
    ] = False,
    smooth: Annotated[int, typer.Option(min=1, help="Plot the mean of so many steps.")] = 1,
    svg: Annotated[Path | None, typer.Option(help="Write the plot to this file too.")] = None,
) -> None:
    """Lay the loss curves of runs over each other, and list what differs between the runs.

    Examples:

      tuneproof runs compare short-0123abcd short-4567ef01

      tuneproof runs compare first second third --validation --svg losses.svg
    """
    if len(set(runs)) < 2:
        raise InvalidInput("name two runs or more")

    async def read(client: TrainerClient) -> list[RunInfo]:
        return await asyncio.gather(*(client.get(each) for each in dict.fromkeys(runs)))

    found = asked.run(read)
    curves = [_curve(run, smooth, validation=validation) for run in found]
    if svg is not None:
        label = "validation loss" if validation else "loss"
        write_atomically(svg, draw(curves, f"{label}, nats per token").encode())
    value = {
        "runs": [json_of(run) for run in found],
        "differing": differing(found),
        **({"svg": str(svg)} if svg else {}),
    }
    asked.give(value, lambda: _show(found, curves))


def _curve(run: RunInfo, steps: int, *, validation: bool) -> Curve:
    return Curve(run.id, smoothed(run.validation_losses if validation else run.losses, steps))


def _show(runs: Sequence[RunInfo], curves: Sequence[Curve]) -> None:
    for line in chart(curves, width=min(out.width, 100), height=16):
        out.print(line, markup=False)
    out.print()
    figures = [figures_of(run) for run in runs]
    rows = [
        ("state", [run.state for run in runs]),
        *((name, list(map(words_of, values))) for name, values in differing(runs).items()),
        ("last loss", [_number(each.loss) for each in figures]),
        ("validation loss", [_number(each.validation_loss) for each in figures]),
        ("tokens/s", [f"{each.tokens_per_second or 0:,.0f}" for each in figures]),
        ("time", [lasting(each.seconds) if each.seconds else "" for each in figures]),
        ("adapter", [short_ref(run.adapter_ref) for run in runs]),
    ]
    columns([row for row in rows if any(row[1])], [run.id for run in runs])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
