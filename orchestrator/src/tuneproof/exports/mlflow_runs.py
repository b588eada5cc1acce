"""A study in MLflow: a run for the study, and within it one for each cell.

Parameters are the study file's values and each cell's place in the grid, metrics the means, the
differences and a training's loss by step; the report is an artifact of the study's run.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tuneproof.analysis import Comparisons, means_by_cell
from tuneproof.exports.differences import leaves
from tuneproof.report import findings, headline
from tuneproof.results import Cell, StudyResults
from tuneproof.results.snapshot import results_json
from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import InvalidInput, Unavailable

KEY = "tuneproof.results"
"""The tag with the digest of what a run holds, by which it is found again."""
_MOST_BATCH = 500
"""Metrics in one request; the server takes 1,000, and 100 parameters."""
_MOST_PARAMETERS = 100
_LONGEST_PARAMETER = 6000
_NAME = re.compile(r"[^\w./ -]")


@dataclass(frozen=True, slots=True)
class Logged:
    """Where a study stands in MLflow."""

    experiment: str
    run: str
    """Id of the study's run."""
    cells: int
    """Runs of cells within it."""
    new: bool
    """False: the same results were there already."""


def log_to_mlflow(
    results: StudyResults,
    comparisons: Comparisons,
    *,
    design: Mapping[str, Any],
    report: Path,
    uri: str,
) -> Logged:
    """Writes the study's runs, or finds those with the same results.

    Args:
        design: the study file's values.
        report: the page that becomes an artifact.
        uri: MLflow's tracking URI, such as `http://127.0.0.1:5000` or `sqlite:///mlflow.db`.

    Raises:
        InvalidInput: MLflow is not installed, or does not know such a URI.
        Unavailable: its server cannot be reached, or refuses.
    """
    try:
        # Not `import`: its pins are at odds with ours, so that no test environment has it.
        refusal = import_module("mlflow.exceptions").MlflowException
        client = import_module("mlflow.tracking").MlflowClient
    except ImportError:
        raise InvalidInput(
            "--mlflow needs MLflow: install it with `pip install 'tuneproof[mlflow]'`, and for a"
            " URI that begins with sqlite: `pip install mlflow`"
        ) from None
    digest = sha256_of_json(results_json(results, design))
    try:
        with redirect_stdout(sys.stderr):  # it prints where to see a run, also between our JSON
            writing = _Writing(client(tracking_uri=uri), results)
            return writing.all(comparisons, design, report, digest)
    except refusal as error:
        raise Unavailable(f"MLflow at {uri}: {error}") from None
    except (ImportError, OSError) as error:
        raise InvalidInput(f"MLflow cannot use {uri}: {error}") from None


class _Writing:
    """One study's way into MLflow."""

    def __init__(self, client: Any, results: StudyResults) -> None:
        self._client = client
        self._results = results
        self._experiment = self._experiment_named(f"tuneproof/{results.name}")

    def _experiment_named(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def all(
        self, comparisons: Comparisons, design: Mapping[str, Any], report: Path, digest: str
    ) -> Logged:
        cells = self._results.cells
        known = self._client.search_runs(
            [self._experiment], f"tags.`{KEY}` = '{digest}' and attributes.status = 'FINISHED'"
        )
        if known:
            return Logged(self._experiment, known[0].info.run_id, len(cells), new=False)
        said = headline(findings(self._results, comparisons))
        tags = {KEY: digest, "mlflow.note.content": said, **_tags(self._results)}
        study = self._client.create_run(
            self._experiment, tags=tags, run_name=self._results.name
        ).info.run_id
        try:
            self._parameters(study, dict(leaves(design)))
            for cell in cells:
                self._cell(cell, study, comparisons)
            seconds = self._results.stage_seconds
            self._metrics(study, [(f"seconds_{name}", v, 0) for name, v in seconds.items()])
            self._client.log_artifact(study, str(report))
        except BaseException:
            self._client.set_terminated(study, "FAILED")
            raise
        self._client.set_terminated(study)
        return Logged(self._experiment, study, len(cells), new=True)

    def _cell(self, cell: Cell, study: str, comparisons: Comparisons) -> None:
        run = self._client.create_run(
            self._experiment, tags={"mlflow.parentRunId": study}, run_name=cell.name
        ).info.run_id
        training = cell.training
        place = {"cell": cell.name, "arm": cell.arm, "size": cell.size, "seed": cell.seed}
        made = {} if training is None else {"adapter": training.adapter_ref, **training.spec}
        self._parameters(run, {**place, **made})
        means = means_by_cell(self._results)[cell.name]
        values = [(name, found.mean, 0) for name, found in means.items() if found.mean is not None]
        for one in comparisons.of_cell(cell.name):
            values += [
                (f"{one.measure}_{name}", value, 0)
                for name, value in (
                    ("difference", one.difference),
                    ("low", one.interval.low if one.interval else None),
                    ("high", one.interval.high if one.interval else None),
                )
                if value is not None
            ]
            self._client.set_tag(run, f"verdict.{one.measure}", one.words)
        if training is not None:
            values += [("loss", loss, step) for step, loss in training.losses]
            values.append(("training_seconds", training.seconds, 0))
        self._metrics(run, values)
        self._client.set_terminated(run)

    def _parameters(self, run: str, values: Mapping[str, Any]) -> None:
        entities = import_module("mlflow.entities")
        listed = [
            entities.Param(_NAME.sub("_", name), str(value)[:_LONGEST_PARAMETER])
            for name, value in values.items()
        ]
        for start in range(0, len(listed), _MOST_PARAMETERS):
            self._client.log_batch(run, params=listed[start : start + _MOST_PARAMETERS])

    def _metrics(self, run: str, values: list[tuple[str, float, int]]) -> None:
        entities = import_module("mlflow.entities")
        listed = [
            entities.Metric(_NAME.sub("_", name), value, 0, step) for name, value, step in values
        ]
        for start in range(0, len(listed), _MOST_BATCH):
            self._client.log_batch(run, metrics=listed[start : start + _MOST_BATCH])


def _tags(results: StudyResults) -> dict[str, str]:
    named = {"dataset": results.dataset, "judge": results.judge_model}
    return {f"tuneproof.{name}": value for name, value in named.items() if value}
