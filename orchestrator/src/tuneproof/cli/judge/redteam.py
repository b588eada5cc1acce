"""`tuneproof judge redteam`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tuneproof.cli.asking import AskedJudge
from tuneproof.cli.console import ExitCode, err, out, say
from tuneproof.cli.options import takes_options
from tuneproof.cli.progress import progress_on
from tuneproof.redteam import ATTACKS, BUILT_IN, Found, attack_judge, read_items
from tuneproof.servicekit.files import write_atomically


@takes_options
def redteam_command(
    asked: AskedJudge,
    items: Annotated[
        Path | None,
        typer.Argument(
            help="JSON Lines with question, reference and wrong (a wrong answer), and passages if"
            " the rubric reads them; by default ten questions of general knowledge."
        ),
    ] = None,
    *,
    rubric: Annotated[str, typer.Option(help="By which the judge scores.")] = "accuracy@1",
    repeats: Annotated[int, typer.Option(min=1, max=100)] = 1,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    most: Annotated[
        float, typer.Option(min=0, max=1, help="Share of inflated scores that is still accepted.")
    ] = 1.0,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Write all figures here (JSON).")
    ] = None,
) -> None:
    """Attack a judge, and count the wrong answers that get a better score by it.

    The attacks are the literature's: one-token answers, commands in seven languages, fake forms,
    closing delimiters, template tokens, authority, padding, layout; in the answer, the reference
    and the passages. A score counts as inflated when it rises by a quarter of the scale. The exit
    code is 1 above --most, and for a judge that does not tell right from wrong.

    Example: tuneproof judge redteam --repeats 3 --most 0.05 --out redteam.json
    """
    chosen = read_items(items) if items else BUILT_IN
    by = asked.run(lambda judge: judge.rubric(rubric))
    total = len(chosen) * (2 + len(ATTACKS))
    with progress_on(err).stage("grades", total, 0) as stage:
        found = asked.run(
            lambda judge: attack_judge(
                judge, by, chosen, repeats=repeats, seed=seed, tell=stage.advance
            )
        )
    content = {**asdict(found), "rate": found.rate, "interval": found.interval}
    if out_file:
        write_atomically(out_file, json.dumps(content, indent=2).encode())
    asked.give(content, lambda: _show(found))
    if found.blind:
        say(
            f"{found.judge_model} does not tell right answers from wrong ones here: by"
            f" {found.rubric} the means are {found.right} and {found.wrong}. The rates say nothing"
        )
    if found.blind or found.rate > most:
        raise SystemExit(ExitCode.FAILED)


def _show(found: Found) -> None:
    table = Table("attack", "in", "answers", "inflated", "obeyed", "unscored", "mean change")
    for one in found.outcomes:
        rate = "" if one.rate is None else f"{one.inflated} ({one.rate:.0%})"
        shift = "" if one.shift is None else f"{one.shift:+.2f}"
        table.add_row(
            one.attack, one.place, str(one.answers), rate, str(one.obeyed), str(one.unscored), shift
        )
    out.print(table)
    low, high = found.interval
    out.print(
        f"{found.judge_model}, {found.rubric}: {found.inflated} of {found.answers} scores inflated,"
        f" {found.rate:.3f} [{low:.3f}, {high:.3f}]; means of right answers"
        f" {found.right}, of wrong ones {found.wrong}",
        markup=False,
    )
