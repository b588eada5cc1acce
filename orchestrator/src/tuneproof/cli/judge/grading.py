"""`tuneproof grade`."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from tuneproof.cli.asking import AskedJudge
from tuneproof.cli.console import ExitCode, err, out, say
from tuneproof.cli.options import takes_options
from tuneproof.cli.progress import progress_on
from tuneproof.data.reading.records import listed
from tuneproof.grading import (
    Results,
    Summary,
    grade_missing,
    keys_of,
    read_answers,
    summary_of,
)
from tuneproof.rubrics import Rubric
from tuneproof.sdk import JudgeClient
from tuneproof.servicekit.errors import InvalidInput

_MANY_UNSCORED = 0.01


@partial(takes_options, on_interrupt="interrupted; the same command goes on where it stopped")
def grade_command(
    asked: AskedJudge,
    answers: Annotated[
        Path,
        typer.Argument(
            help="JSON Lines with question, answer, reference (or references) and passages, as far"
            " as the rubrics read them, and id; without an id a line has its number."
        ),
    ],
    *,
    rubric: Annotated[
        list[str] | None, typer.Option(help="Repeatable; accuracy@1 by default.")
    ] = None,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Gets a line of JSON for each grade; by default ANSWERS.grades.jsonl."
        ),
    ] = None,
    mode: Annotated[Literal["sampled", "weighted"], typer.Option()] = "sampled",
    repeats: Annotated[int, typer.Option(min=1, max=100)] = 10,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0)] = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    retries: Annotated[
        int, typer.Option(help="How often a repeat without a score is asked again.", min=0, max=5)
    ] = 1,
    settled_after: Annotated[
        int, typer.Option(help="No more repeats once so many first ones agree.", min=0, max=100)
    ] = 0,
    joint: Annotated[bool, typer.Option(help="All rubrics in one form.")] = False,
    in_flight: Annotated[int, typer.Option(help="Answers that the judge has at once.", min=1)] = 32,
) -> None:
    """Grade the answers in a file.

    Each grade is written as it comes. After Ctrl-C, a crash or a kill the same command goes on: an
    answer with a grade in the file is not asked for again, and one with another text, other
    rubrics or other options is refused. Exits with 3 when answers could not be graded.

    Examples:

      tuneproof grade answers.jsonl

      tuneproof grade answers.jsonl --rubric accuracy@1 --rubric completeness@1 --repeats 5

      tuneproof grade answers.jsonl --rubric relevance@1 --mode weighted --out grades.jsonl --json
    """
    ids = list(dict.fromkeys(rubric or ["accuracy@1"]))
    path = out_file or answers.with_name(f"{answers.name.removesuffix('.jsonl')}.grades.jsonl")

    async def rubrics(judge: JudgeClient) -> list[Rubric]:
        return [await judge.rubric(name) for name in ids]

    by = asked.run(rubrics)
    if len({one.criterion for one in by}) < len(by):
        raise InvalidInput("two rubrics score the same criterion; take one of them", field="rubric")
    options: dict[str, Any] = {
        "rubrics": tuple(ids),
        "repeats": repeats,
        "seed": seed,
        "temperature": temperature,
        "mode": mode,
        "retries": retries,
        "settled_after": settled_after,
        "joint": joint,
    }
    inputs = {name: replace(one, **options) for name, one in read_answers(answers, by).items()}
    with (
        Results.opened(path, keys_of(inputs, by)) as results,
        progress_on(err).stage("grades", len(inputs), len(results.lines)) as stage,
    ):

        def tell() -> None:
            stage.note(str(results.cost))
            stage.advance()

        failed = asked.run(
            lambda judge: grade_missing(judge, inputs, results, in_flight=in_flight, tell=tell)
        )
    found = summary_of(results, failed)
    asked.give({**asdict(found), "out": str(path)}, lambda: _show(found, results))
    for name, score in found.scores.items():
        if score.unscored > _MANY_UNSCORED * found.graded:
            say(f"{name}: {score.unscored} of {found.graded} answers are unscored")
    if found.failed:
        reasons = [f"{name}: {why}" for name, why in found.failed.items()]
        say(f"{len(reasons)} answers could not be graded:\n{listed(reasons)}")
        raise SystemExit(ExitCode.PARTLY)


def _show(found: Summary, results: Results) -> None:
    table = Table("score", "answers", "mean", "unscored", box=None)
    for name, score in found.scores.items():
        mean = "" if score.mean is None else f"{score.mean:.3f}"
        table.add_row(name, str(score.scored), mean, str(score.unscored))
    out.print(table)
    out.print(f"{found.judge_model}: {results.cost}\n{results.path}", markup=False)
