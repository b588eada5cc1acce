"""`tuneproof study export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from tuneproof.cli.console import give, plain_errors
from tuneproof.cli.options import STATE, JsonOption, StateOption
from tuneproof.cli.study import DataOption
from tuneproof.servicekit.errors import InvalidInput, WrongState
from tuneproof.servicekit.files import write_atomically
from tuneproof.study.opened import Study, last_run

Format = Literal["csv", "parquet", "json", "promptfoo", "inspect", "prompts"]
FORMATS: tuple[Format, ...] = get_args(Format)
_ENDINGS = {".csv": "csv", ".parquet": "parquet", ".json": "json", ".eval": "inspect"}
Table = Literal["answers", "repeats", "cells", "comparisons"]


def export_command(
    file: Annotated[
        Path,
        typer.Argument(help="The study file (YAML), or results that `--format json` wrote."),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write, of inspect a folder; by default in <state>/exports."),
    ] = None,
    to: Annotated[
        Format | None,
        typer.Option("--format", help="What to write; by default as the ending of --out says."),
    ] = None,
    table: Annotated[
        Table, typer.Option(help="Of csv and parquet: which rows to write.")
    ] = "answers",
    data: DataOption = None,
    state: StateOption = STATE,
    as_json: JsonOption = False,
) -> None:
    """Write a study's results so far for other programs. This needs no service.

    csv and parquet: a row for each answer, each of the judge's readings (repeats), each cell or
    each comparison. json: everything, for `study diff`, another machine or Python. promptfoo: for
    `promptfoo import`. inspect: a log for each cell, for `inspect view`. prompts: the test
    questions as the baseline was asked, JSON Lines, for another system (`study import`).

    Examples:

      tuneproof study export studies/demo.yaml --out answers.csv

      tuneproof study export studies/demo.yaml --out readings.parquet --table repeats

      tuneproof study export studies/demo.yaml --format promptfoo --out demo.json

      tuneproof study export studies/demo.yaml --format inspect --out logs/
    """
    with plain_errors():
        # Loading scipy takes a while.
        from tuneproof.exports.sides import open_results  # noqa: PLC0415

        wanted = _format(to, out)
        if wanted == "prompts":
            path = out or state / "exports" / f"{file.stem}-prompts.jsonl"
            value = {"format": wanted, "files": [str(_write_prompts(file, state, data, path))]}
            give(value, str(path), as_json=as_json)
            return
        study = open_results(file, state, data)
        ending = {"promptfoo": ".promptfoo.json", "inspect": ""}.get(wanted, f".{wanted}")
        part = f"-{table}" if wanted in ("csv", "parquet") else ""
        path = out or state / "exports" / f"{study.results.name}{part}{ending}"
        files = _write(study, wanted, table, path)
        value = {"format": wanted, "files": [str(each) for each in files]}
        give(value, "\n".join(value["files"]), as_json=as_json)


def _write_prompts(file: Path, state: Path, data: Path | None, path: Path) -> Path:
    """The prompts of the test questions that are searched already."""
    from tuneproof.study.steps.importing import prompt_digest, prompts_of  # noqa: PLC0415

    with last_run(file, state, data) as chain:
        prompts = prompts_of(chain.plan, chain.searched().questions)
        if len(prompts) < len(chain.plan.test):
            raise WrongState(
                f"{len(chain.plan.test) - len(prompts)} of {len(chain.plan.test)} test questions"
                " have no passages yet: run the study first, so that retrieval finds them"
            )
    lines = [
        json.dumps(
            {
                "id": each.id,
                "question": each.question,
                "messages": messages,
                "prompt_digest": prompt_digest(messages),
            },
            ensure_ascii=False,
        )
        for each, messages in prompts
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, ("\n".join(lines) + "\n").encode("utf-8", "replace"))
    return path


def _format(to: Format | None, out: Path | None) -> Format:
    if to is not None:
        return to
    ending = out.suffix.lower() if out is not None else ""
    if ending not in _ENDINGS:
        raise InvalidInput(f"say what to write: --format {' | '.join(FORMATS)}")
    found: Format = _ENDINGS[ending]  # type: ignore[assignment]
    return found


def _write(study: Study, wanted: Format, table: Table, path: Path) -> list[Path]:
    from tuneproof.exports.inspect_log import write_inspect_logs  # noqa: PLC0415 - see above
    from tuneproof.exports.promptfoo import promptfoo_json  # noqa: PLC0415 - see above
    from tuneproof.exports.tables import write_csv, write_parquet  # noqa: PLC0415 - see above
    from tuneproof.results.snapshot import results_json  # noqa: PLC0415 - see above

    if wanted == "inspect":
        return write_inspect_logs(study.results, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if wanted in ("csv", "parquet"):
        draft = path.with_name(f"{path.name}.part")
        try:
            (write_csv if wanted == "csv" else write_parquet)(study.rows(table), draft)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        return [path]
    value = (
        promptfoo_json(study.results)
        if wanted == "promptfoo"
        else results_json(study.results, study.design)
    )
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text.encode("utf-8", "replace"))
    return [path]
