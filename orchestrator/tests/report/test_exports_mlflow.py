"""A study in MLflow: its client is a fake here, since the package is no part of the tests."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from tuneproof.analysis import compare
from tuneproof.exports.mlflow_runs import log_to_mlflow
from tuneproof.servicekit.errors import InvalidInput, Unavailable

pytestmark = pytest.mark.timeout(60)
DESIGN = {"study": "demo", "arms": [{"name": "baseline"}, {"name": "short", "tune": {"k": 1}}]}


class Refused(Exception):
    """As `mlflow.exceptions.MlflowException`."""


class Client:
    """As much of `mlflow.tracking.MlflowClient` as is called, strict about what MLflow refuses."""

    def __init__(self, tracking_uri):
        if tracking_uri == "http://nobody":
            raise Refused("no route")
        if tracking_uri.startswith("sqlite"):
            raise ModuleNotFoundError("No module named 'sqlalchemy'")
        self.runs = SERVER

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="7") if self.runs else None

    def create_experiment(self, name):
        assert name == "tuneproof/demo"
        return "7"

    def search_runs(self, experiments, query):
        digest = query.split("'")[1]
        found = [r for r in self.runs if r.tags.get("tuneproof.results") == digest]
        return [one for one in found if one.status == "FINISHED"]

    def create_run(self, experiment, tags, run_name):
        info = SimpleNamespace(run_id=f"run{len(self.runs)}")
        run = SimpleNamespace(info=info, name=run_name, tags=dict(tags), status="RUNNING")
        run.params, run.metrics, run.artifacts = {}, {}, []
        self.runs.append(run)
        return run

    def _run(self, run):
        return next(one for one in self.runs if one.info.run_id == run)

    def log_batch(self, run, metrics=(), params=()):
        assert len(params) <= 100
        assert len(metrics) + len(params) <= 1000
        for one in params:
            assert one.key not in self._run(run).params
            assert len(one.value) <= 6000
            self._run(run).params[one.key] = one.value
        for one in metrics:
            self._run(run).metrics.setdefault(one.key, []).append((one.step, one.value))

    def set_tag(self, run, name, value):
        self._run(run).tags[name] = value

    def log_artifact(self, run, path):
        self._run(run).artifacts.append(path)

    def set_terminated(self, run, status="FINISHED"):
        print("View run at http://mlflow/runs")
        self._run(run).status = status


SERVER: list = []


@pytest.fixture
def mlflow(monkeypatch):
    SERVER.clear()
    parts = {
        "mlflow": {},
        "mlflow.exceptions": {"MlflowException": Refused},
        "mlflow.tracking": {"MlflowClient": Client},
        "mlflow.entities": {
            "Param": lambda key, value: SimpleNamespace(key=key, value=value),
            "Metric": lambda key, value, timestamp, step: SimpleNamespace(
                key=key, value=value, step=step
            ),
        },
    }
    for name, values in parts.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    return SERVER


@pytest.fixture
def log(study, tmp_path):
    report = tmp_path / "demo.html"
    report.write_text("page")
    comparisons = compare(study)

    def call(uri="http://mlflow"):
        return log_to_mlflow(study, comparisons, design=DESIGN, report=report, uri=uri)

    return call


def test_the_study_is_a_run_and_each_cell_one_within_it(mlflow, log, study, capsys):
    logged = log()
    assert capsys.readouterr().out == "", "standard output is for our JSON"
    assert logged.new
    first, *cells = mlflow
    assert [run.name for run in cells] == [cell.name for cell in study.cells]
    assert all(run.tags["mlflow.parentRunId"] == first.info.run_id for run in cells)
    assert all(run.status == "FINISHED" for run in mlflow)
    assert first.params == {"study": "demo", "arms.baseline.name": "baseline",
                            "arms.short.name": "short", "arms.short.tune.k": "1"}  # fmt: skip
    assert len(first.artifacts) == 1
    short = cells[1]
    assert short.params["rank"] == "16"
    assert json.loads(short.params["skip_modules"].replace("'", '"'))[0] == "lm_head"
    assert len(short.metrics["loss"]) == len(study.cells[1].training.losses)
    assert short.metrics["accuracy_difference"][0][1] < 0
    assert short.tags["verdict.accuracy"] == "worse"
    assert "accuracy" in cells[0].metrics


def test_the_same_results_are_logged_once(mlflow, log):
    first = log()
    again = log()
    assert (again.run, again.new) == (first.run, False)
    assert len(mlflow) == 4


def test_a_run_that_breaks_off_failed(mlflow, log, monkeypatch):
    def refuse(self, run, path):
        raise Refused("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(Client, "log_artifact", refuse)
        with pytest.raises(Unavailable, match="MLflow at http://mlflow: the disk is full"):
            log()
    assert mlflow[0].status == "FAILED"
    assert log().new


def test_what_cannot_be_says_so(mlflow, log, monkeypatch):
    with pytest.raises(Unavailable, match="no route"):
        log("http://nobody")
    with pytest.raises(InvalidInput, match=r"cannot use sqlite:///x.db: .*sqlalchemy"):
        log("sqlite:///x.db")
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(InvalidInput, match=r"pip install 'tuneproof\[mlflow\]'"):
        log()
