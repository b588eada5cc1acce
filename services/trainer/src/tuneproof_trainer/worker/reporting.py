"""Where a training's losses go beside the run's record: TensorBoard and MLflow, as TRL sends them.

Both are off unless the trainer names a place. A training never depends on them: an MLflow server
that does not answer at the start is left out, with a line in the run's log, and later losses that
it does not take are lost.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tuneproof_trainer.record import Job

_MLFLOW_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""By itself it tries 7 times, 2 minutes each."""


@dataclass(frozen=True)
class Reporting:
    """What TRL is told."""

    to: tuple[str, ...] = ()
    """Names of transformers' integrations, such as `tensorboard`."""
    run_name: str = ""


def reporting_of(job: Job) -> Reporting:
    """Where a job's losses go. Sets the environment that TRL's callbacks read."""
    found = []
    if job.tensorboard:
        folder = Path(job.tensorboard) / job.run_id
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder)
        found.append("tensorboard")
    if job.mlflow and _answers(job.mlflow):
        os.environ["MLFLOW_TRACKING_URI"] = job.mlflow
        os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", "tuneproof")
        found.append("mlflow")
    return Reporting(tuple(found), job.run_id)


def _answers(uri: str) -> bool:
    mlflow = import_module("mlflow")  # An optional package.
    os.environ.update(_MLFLOW_PATIENCE)
    try:
        mlflow.MlflowClient(uri).search_experiments(max_results=1)
    except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on
        print(f"MLflow at {uri} is left out: {type(error).__name__}: {error}", flush=True)
        return False
    return True
