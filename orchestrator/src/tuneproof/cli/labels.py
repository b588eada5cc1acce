"""`tuneproof study label export | import`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneproof.cli.console import give, plain_errors
from tuneproof.cli.options import STATE, JsonOption, StateOption
from tuneproof.cli.study import FileArgument
from tuneproof.results import Rating, StudyResults
from tuneproof.servicekit.errors import InvalidInput, NotFound
from tuneproof.servicekit.files import write_atomically
from tuneproof.study.collect import load_results
from tuneproof.study.opened import json_object, last_run
from tuneproof.study.state.lock import exclusive
from tuneproof.study.state.store import open_state
from tuneproof.study.steps.chain import Chain

if TYPE_CHECKING:
    from tuneproof.labels import Sample

app = typer.Typer(
    help="Ask people about some pairs of answers, so that a verdict stands on more than a judge.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_SAMPLE = ""
"""Name of the sheet that holds what is asked; the others have raters' names."""
_PLANNED = (25, 50, 100, 200)


@app.command("export")
def export_command(
    file: FileArgument,
    *,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", help="The page; by default <state>/labels/<study>.html."),
    ] = None,
    pairs: Annotated[int, typer.Option(min=2, help="Pairs of each comparison to label.")] = 60,
    repeats: Annotated[
        int, typer.Option(min=0, help="How many of them come twice, for self-agreement.")
    ] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 1,
    redraw: Annotated[
        bool, typer.Option(help="Draw anew, and drop what people labelled so far.")
    ] = False,
    plan: Annotated[
        bool, typer.Option(help="Only say how wide intervals will be by number of pairs.")
    ] = False,
    correlation: Annotated[
        float,
        typer.Option(min=0, max=1, help="With --plan: of judge and people, until labels tell it."),
    ] = 0.6,
    state: StateOption = STATE,
    as_json: JsonOption = False,
) -> None:
    """Write a page on which people rate pairs of answers, drawn by chance.

    The page is one file that works offline. It hides which system gave which answer. Each rater
    sends back the file that it saves.

    Examples:

      tuneproof study label export study.yaml --plan

      tuneproof study label export study.yaml --pairs 100 --out label.html
    """
    from tuneproof import labels  # noqa: PLC0415 - scipy takes long to load

    with plain_errors(), exclusive(state), last_run(file, state) as chain:
        if plan:
            _plan(chain, correlation, as_json=as_json)
            return
        results = load_results(chain)
        sample = labels.draw(results, pairs=pairs, repeats=repeats, seed=seed)
        kept = chain.state.labels(sample.study)
        if kept and not redraw and _sample(kept).digest != sample.digest:
            old = _sample(kept)
            raise InvalidInput(
                f"a sample of {sample.study} was drawn already (--pairs {old.pairs} --repeats"
                f" {old.repeats} --seed {old.seed}), with {len(kept) - 1} raters' labels: the same"
                " flags write its page again, where its answers are still the same; --redraw draws"
                " another one, and drops these labels"
            )
        page = labels.build_page(results, sample, chain.identities.rubrics)
        path = out_file or state / "labels" / f"{sample.study}.html"
        write_atomically(path, page.encode("utf-8", "replace"))
        if not kept or redraw:
            with open_state(state, write=True) as results_file:
                results_file.set_labels(sample.study, {_SAMPLE: sample.to_json()})
        again = sum(task.again for task in sample.tasks)
        value = {"page": str(path), "sample": sample.digest, "seed": seed, "again": again}
        value["pairs"] = len(sample.tasks) - again
        text = f"{value['pairs']} pairs to label, {again} of them twice: {path}"
        give(value, text, as_json=as_json)


@app.command("import")
def import_command(
    file: FileArgument,
    labels_files: Annotated[
        list[Path], typer.Argument(metavar="LABELS...", help="What raters saved.")
    ],
    *,
    replace: Annotated[bool, typer.Option(help="Drop what these raters said before.")] = False,
    state: StateOption = STATE,
    as_json: JsonOption = False,
) -> None:
    """Read what people labelled, and say what it shows.

    A rater's later file may go on from an earlier one. `study report` shows the verdicts anchored
    in these labels.

    Example:

      tuneproof study label import study.yaml labels-ann.json labels-bob.json
    """
    from tuneproof import labels  # noqa: PLC0415 - scipy takes long to load

    with plain_errors(), exclusive(state):
        with last_run(file, state) as chain:
            study, results = chain.plan.spec.study, load_results(chain)
            sheets = chain.state.labels(study)
            if not sheets:
                raise NotFound(f"nobody was asked about {study}: run `study label export` first")
            sample = _sample(sheets)
            read = [_read(path, sample, results) for path in labels_files]
            if len({rater for rater, _ in read}) < len(read):
                raise InvalidInput("two of these files are by one rater: give the later one")
            for rater, now in read:
                earlier = () if replace else [Rating(**each) for each in sheets.get(rater, ())]
                sheets[rater] = [asdict(each) for each in labels.added(earlier, now)]
        with open_state(state, write=True) as results_file:
            results_file.set_labels(study, sheets)
        with last_run(file, state) as chain:
            _tell(chain, as_json=as_json)


def _sample(sheets: dict[str, Any]) -> Sample:
    from tuneproof.labels import Sample  # noqa: PLC0415 - see above

    return Sample.from_json(sheets[_SAMPLE])


def _read(path: Path, sample: Sample, results: StudyResults) -> tuple[str, tuple[Rating, ...]]:
    """A rater's file; each mistake in it names the file."""
    from tuneproof.labels import ratings_of  # noqa: PLC0415 - see above

    value = json_object(path)
    try:
        return ratings_of(value, sample, results)
    except InvalidInput as error:
        lines = error.message.splitlines()
        raise InvalidInput("\n".join(f"{path}: {line}" for line in lines)) from None


def _tell(chain: Chain, *, as_json: bool) -> None:
    """What the labels show of judge, people and verdicts."""
    from tuneproof.analysis import compare  # noqa: PLC0415 - see above
    from tuneproof.report.export import json_values  # noqa: PLC0415
    from tuneproof.report.support import agreement_lines, support_json, support_rows  # noqa: PLC0415

    results = load_results(chain)
    comparisons = compare(results)
    lines = list(agreement_lines(results))
    for row in support_rows(results, comparisons):
        lines += [f"{row.label}, {row.measure}", *(f"  {name}: {text}" for name, text in row.lines)]
    told = json_values(support_json(results, comparisons))
    give(told, "\n".join(lines), as_json=as_json)


def _plan(chain: Chain, correlation: float, *, as_json: bool) -> None:
    """How wide the anchored intervals will be."""
    from tuneproof.analysis import WORD_OVERLAP, compare  # noqa: PLC0415 - see above
    from tuneproof.analysis.planning import anchored_reach  # noqa: PLC0415

    results = load_results(chain)
    rows, lines = [], []
    for one in compare(results).primary:
        if one.standard_error is None or one.by == WORD_OVERLAP:
            continue
        reaches = {
            count: anchored_reach(one.standard_error, one.items, count, correlation)
            for count in _PLANNED
            if count <= one.items
        }
        rows.append({"cell": one.cell, "measure": one.measure, "reach": reaches})
        told = ", ".join(f"{count} pairs ±{reach:.2f}" for count, reach in reaches.items())
        lines.append(f"{one.cell}, {one.measure}: {told}")
    give({"correlation": correlation, "plan": rows}, "\n".join(lines), as_json=as_json)
