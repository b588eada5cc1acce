"""Losses in TensorBoard and MLflow, where the trainer names them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from tuneproof_trainer.data import parse_examples
from tuneproof_trainer.examples import Examples
from tuneproof_trainer.record import Job
from tuneproof_trainer.settings import TrainerSettings
from tuneproof_trainer.worker.reporting import Reporting, reporting_of

from .test_trainer_training import small_spec

pytestmark = pytest.mark.timeout(120)


def job(base_folder: Path, artifacts: Path, **more: str) -> Job:
    return Job(
        run_id="first",
        base_folder=str(base_folder),
        artifacts=str(artifacts),
        device="cpu",
        threads=1,
        **more,
    )


def test_tensorboard_gets_every_loss_in_the_runs_folder(
    base_folder: Path, artifacts: Path, write_data: Callable[..., Any], monkeypatch: Any
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from tuneproof_trainer.worker.pipeline import make_adapter

    write_data(count=8)
    examples = parse_examples((artifacts / "data/train.jsonl").read_bytes(), "x")
    steps: list[Any] = []
    make_adapter(
        small_spec(base_folder),
        job(base_folder, artifacts, tensorboard=str(artifacts / "boards")),
        Examples(examples[:6], examples[6:]),
        artifacts / "out",
        on_phase=lambda _: None,
        on_step=steps.append,
    )
    events = EventAccumulator(str(artifacts / "boards" / "first"))
    events.Reload()
    told = [(each.step, each.value) for each in events.Scalars("train/loss")]
    assert [step for step, _ in told] == [1, 2]
    assert [value for _, value in told] == pytest.approx([each.loss for each in steps], abs=1e-4)
    assert events.Scalars("eval/loss")


def test_without_a_place_nothing_is_sent(base_folder: Path, artifacts: Path) -> None:
    assert reporting_of(job(base_folder, artifacts)) == Reporting((), "first")


class Mlflow:
    """Stands for the package: its client answers, or not."""

    answers = True

    def __init__(self, uri: str) -> None:
        assert uri == "http://mlflow:5000"

    def search_experiments(self, max_results: int) -> list[str]:
        if not self.answers:
            raise OSError("no route to host")
        return []


def test_an_mlflow_that_does_not_answer_is_left_out(
    base_folder: Path, artifacts: Path, monkeypatch: Any, capsys: Any
) -> None:
    for name in ("TRACKING_URI", "EXPERIMENT_NAME", "HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(f"MLFLOW_{name}", "")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "")
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Mlflow))
    asked = job(base_folder, artifacts, mlflow="http://mlflow:5000")
    assert reporting_of(asked).to == ("mlflow",)
    monkeypatch.setattr(Mlflow, "answers", False)
    assert reporting_of(asked).to == ()
    assert "no route to host" in capsys.readouterr().out


def test_a_package_that_is_not_installed_is_told_at_the_start(
    base_folder: Path, artifacts: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("tuneproof_trainer.settings.find_spec", lambda _: None)
    with pytest.raises(
        ValidationError, match=r"pip install 'tuneproof-trainer\[tensorboard,mlflow"
    ):
        TrainerSettings(
            model=str(base_folder),
            artifacts=str(artifacts),
            tensorboard=artifacts / "boards",
            mlflow="http://mlflow:5000",
        )
