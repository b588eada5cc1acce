"""A side of a comparison from a file: a study file, exported results, or a JSON report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuneproof.analysis import means_by_cell
from tuneproof.exports.differences import Side, Verdict
from tuneproof.report.export import SCHEMA as REPORT
from tuneproof.results.snapshot import SCHEMA as RESULTS
from tuneproof.servicekit.errors import InvalidInput, NotFound
from tuneproof.study.design.specfile import load_spec
from tuneproof.study.opened import Study, json_object
from tuneproof.study.state.store import open_state


def side_of(path: Path, state: Path, data: Path | None = None) -> Side:
    """What a file says of a study.

    Args:
        path: a study file, whose results are those in the state folder, if it ran there; or what
            `study export --format json` or `study report --json` wrote.
        state: the folder in which the study ran.
        data: the data set's file, where not that of the last run.

    Raises:
        InvalidInput: the file is none of these, or has mistakes.
    """
    if path.suffix.lower() != ".json":
        return _of_study_file(path, state, data)
    value = json_object(path)
    if value.get("schema") == RESULTS:
        return _of_study(str(path), Study.read(path))
    if value.get("schema") == REPORT:
        return _of_report(str(path), value)
    raise InvalidInput(
        f"{path} holds neither results nor a report of a study: its schema is"
        f" {value.get('schema')!r}, known are {RESULTS!r} and {REPORT!r}"
    )


def open_results(path: Path, state: Path, data: Path | None = None) -> Study:
    """The results of a study file, or those in a results file."""
    is_json = path.suffix.lower() == ".json"
    return Study.read(path) if is_json else Study.open(path, state, data)


def _of_study_file(path: Path, state: Path, data: Path | None) -> Side:
    spec = load_spec(path)
    try:
        with open_state(state, write=False) as results:
            ran = results.study(spec.study) is not None
    except NotFound:
        ran = False
    if not ran:
        return Side(str(path), spec.model_dump(mode="json", by_alias=True))
    return _of_study(str(path), Study.open(path, state, data))


def _of_study(name: str, study: Study) -> Side:
    results = study.results
    return Side(
        name,
        study.design or None,
        results.provenance,
        tuple(cell.name for cell in results.cells),
        verdicts={
            (one.cell, one.measure): Verdict(
                one.words,
                one.difference,
                one.interval.low if one.interval else None,
                one.interval.high if one.interval else None,
            )
            for one in study.comparisons.primary
        },
        means={
            (cell, measure): found.mean
            for cell, by_measure in means_by_cell(results).items()
            for measure, found in by_measure.items()
        },
        answers={
            (one.cell, one.item): one.text if one.served_by else None for one in results.answers
        },
    )


def _of_report(name: str, value: Mapping[str, Any]) -> Side:
    try:
        return Side(
            name,
            None,
            value["provenance"],
            tuple(cell["name"] for cell in value["cells"]),
            verdicts={
                (one["cell"], one["measure"]): Verdict(
                    one["words"],
                    one["difference"],
                    one["interval"]["low"] if one["interval"] else None,
                    one["interval"]["high"] if one["interval"] else None,
                )
                for one in value["comparisons"]
            },
            means={
                (cell["name"], measure): found["mean"]
                for cell in value["cells"]
                for measure, found in cell["means"].items()
            },
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{name} is not a whole report of a study: {error!r}") from None
