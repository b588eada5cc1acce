"""Sweeps: their file, what they propose, and that a killed one goes on."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from tuneproof.cli.runs.figures import validation_loss_of
from tuneproof.sdk import Hyperparameters, RunInfo, RunProgress, RunSpec
from tuneproof.servicekit.errors import InvalidInput, Unavailable
from tuneproof.study.design.specfile import load_spec
from tuneproof.sweeps.running import Sweep, SweepResult
from tuneproof.sweeps.search import search_of
from tuneproof.sweeps.spec import SWEEP_FILE

pytestmark = pytest.mark.timeout(60)

GRID = """\
sweep: ranks
data: train.jsonl
adapter: short
hyperparameters: {validation_share: 0.2}
search:
  rank: [8, 16, 64]
  learning_rate: [1e-4, 1e-3]
"""
OPTUNA = """\
sweep: rates
data: train.jsonl
adapter: short
seed: 3
hyperparameters: {validation_share: 0.2}
search:
  learning_rate: {low: 1e-5, high: 1e-1, log: true}
  rank: {low: 4, high: 64}
  schedule: [constant, cosine]
method: optuna
budget: {trials: 14}
"""
NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Trainer:
    """Trains at once. `dies_at` runs that it has made, it is away."""

    def __init__(self) -> None:
        self.runs: dict[str, RunInfo] = {}
        self.dies_at = math.inf
        self.most = self._now = 0
        self.refuses = ""
        self.fails: Callable[[Hyperparameters], bool] = lambda _: False

    async def create(self, run_id: str, spec: RunSpec) -> RunInfo:
        if self.refuses:
            raise InvalidInput("it cannot be run", field=self.refuses)
        if run_id not in self.runs:
            if len(self.runs) >= self.dies_at:
                raise Unavailable("the trainer is away")
            self.runs[run_id] = _run(run_id, spec, "queued")
        return self.runs[run_id]

    async def wait(self, run_id: str, *, on_progress=None) -> RunInfo:
        known = self.runs[run_id]
        if not known.ended:
            self._now += 1
            self.most = max(self.most, self._now)
            await asyncio.sleep(0)
            self._now -= 1
            failed = self.fails(known.spec.hyperparameters)
            self.runs[run_id] = _run(run_id, known.spec, "failed" if failed else "succeeded")
        on_progress(self.runs[run_id])
        return self.runs[run_id]


def _run(run_id: str, spec: RunSpec, state: str) -> RunInfo:
    given = spec.hyperparameters
    loss = 1 + abs(given.rank - 16) / 100 + (math.log10(given.learning_rate) + 3) ** 2
    ended = state == "succeeded"
    return RunInfo(
        id=run_id,
        spec=spec,
        state=state,
        reason="the loss became nan" if state == "failed" else "",
        progress=RunProgress(1, 1, 1.0, 1.0, 0.0),
        adapter_ref=f"short@{run_id}" if ended else "",
        losses=((1, 1.0),),
        validation_losses=((1, loss),) if ended else (),
        create_time=NOW,
        start_time=NOW,
        end_time=NOW + timedelta(minutes=6) if ended else None,
        provenance={},
    )


async def sweep(text: str, trainer: Trainer, **changes) -> SweepResult:
    spec = SWEEP_FILE.parse(text, "sweep.yaml")
    spec = spec.model_copy(update=changes)
    base = RunSpec("short", "datasets/x.jsonl", "sha256:" + "ab" * 32, seed=spec.seed)
    return await Sweep(trainer, spec, search_of(spec), base, loss_of=validation_loss_of).run()


async def test_a_grid_trains_every_point_and_ranks_them():
    trainer = Trainer()
    found = await sweep(GRID, trainer)
    assert (len(found.trials), found.ended_by) == (6, "search")
    assert found.trials[0].point == {"rank": 16, "learning_rate": 1e-3}
    losses = [each.loss for each in found.trials]
    assert losses == sorted(losses)
    best = found.best
    assert (best.rank, best.learning_rate, best.validation_share) == (16, 1e-3, 0.2)
    assert best.model_fields_set == {"rank", "learning_rate", "validation_share"}
    specs = [each.spec for each in trainer.runs.values()]
    assert {spec.data_path for spec in specs} == {"datasets/x.jsonl"}


@pytest.mark.parametrize("text", [GRID, OPTUNA])
@pytest.mark.parametrize("at_once", [1, 3])
async def test_a_killed_sweep_goes_on_and_trains_nothing_twice(text, at_once):
    whole = Trainer()
    wanted = await sweep(text, whole, at_once=at_once)
    broken = Trainer()
    for alive in (1, len(whole.runs) // 2, len(whole.runs) - 1):
        broken.dies_at = alive
        with pytest.raises(Unavailable):
            await sweep(text, broken, at_once=at_once)
        assert len(broken.runs) == alive
    broken.dies_at = math.inf
    assert await sweep(text, broken, at_once=at_once) == wanted
    assert broken.runs.keys() == whole.runs.keys()
    assert whole.most == at_once


async def test_optuna_finds_the_better_half_within_its_bounds():
    trainer = Trainer()
    found = await sweep(OPTUNA.replace("trials: 14", "trials: 40"), trainer)
    assert found.ended_by == "trials"
    for each in trainer.runs.values():
        given = each.spec.hyperparameters
        assert 1e-5 <= given.learning_rate <= 1e-1
        assert 4 <= given.rank <= 64
        assert given.schedule in ("constant", "cosine")
    assert found.trials[0].loss < 1.5


async def test_a_budget_of_hours_ends_it():
    found = await sweep(GRID + "budget: {hours: 0.25}\n", Trainer())
    assert (len(found.trials), found.ended_by) == (3, "hours")  # Each takes a tenth of an hour.


async def test_optuna_ends_when_nothing_is_new():
    text = OPTUNA.replace("{low: 1e-5, high: 1e-1, log: true}", "[1e-3]")
    text = text.replace("{low: 4, high: 64}", "[8, 16]").replace("trials: 14", "hours: 900")
    found = await sweep(text, Trainer())
    assert found.ended_by == "search"
    assert len(found.trials) <= 4


@pytest.mark.parametrize("text", [GRID, OPTUNA])
async def test_failed_trials_stand_last_and_are_never_the_best(text):
    trainer = Trainer()
    trainer.fails = lambda given: given.rank == 16 or given.learning_rate > 1e-2
    found = await sweep(text, trainer)
    lost = [each for each in found.trials if each.loss is None]
    assert lost
    assert found.trials[-len(lost) :] == tuple(lost)
    assert {each.reason for each in lost} == {"the loss became nan"}
    assert found.best.rank != 16


async def test_where_all_trials_fail_there_is_no_best():
    trainer = Trainer()
    trainer.fails = lambda _: True
    found = await sweep(GRID, trainer)
    assert found.best is None
    assert len(found.trials) == 6


async def test_a_point_that_the_trainer_refuses_is_told_but_wrong_data_end_it():
    trainer = Trainer()
    trainer.refuses = "spec.hyperparameters.rank"
    found = await sweep(GRID, trainer)
    assert {(each.state, each.reason) for each in found.trials} == {("refused", "it cannot be run")}
    trainer.refuses = "spec.data.path"
    with pytest.raises(InvalidInput, match="cannot be run"):
        await sweep(GRID, trainer)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{validation_share: 0.2}", "{rank: 4}", "validation_share is 0: a sweep chooses by the"),
        ("rank: [8, 16, 64]", "rnak: [8]", "search.rnak: is not a hyper-parameter"),
        ("rank: [8, 16, 64]", "rank: [8, 900]", "got 900"),
        ("rank: [8, 16, 64]", "rank: {low: 8, high: 16}", "is a range; a grid needs values"),
        ("rank: [8, 16, 64]", "validation_share: [0.1, 0.2]", "validate on the same examples"),
        ("sweep: ranks", "sweep: Ranks!", "must be a to z"),
        ("adapter: short", "adapter: short\nmethod: optuna", "Optuna ends at a number of trials"),
        ("adapter: short", "adapter: short\ntest: x.jsonl", "test: is not a key of a sweep file"),
    ],
)
def test_mistakes_are_told_with_their_lines(old, new, said):
    with pytest.raises(InvalidInput) as told:
        SWEEP_FILE.parse(GRID.replace(old, new), "sweep.yaml")
    assert said in told.value.message
    assert "sweep.yaml:" in told.value.message


def test_a_range_is_of_numbers_in_order():
    for old, new, said in (
        ("{low: 4, high: 64}", "{low: 64, high: 4}", "low 64 is not below high 4"),
        ("low: 1e-5, ", "low: 0, ", "with log, low must be above 0"),
        ("schedule: [constant, cosine]", "schedule: {low: 1, high: 2}", "is not a number"),
    ):
        with pytest.raises(InvalidInput, match=said):
            SWEEP_FILE.parse(OPTUNA.replace(old, new), "sweep.yaml")


def test_the_command_writes_what_a_study_and_a_run_take(runs, told):
    Path("sweep.yaml").write_text(GRID)
    code, out, err = runs("sweep", "sweep.yaml", "--out", "best.yaml")
    assert code == 0, err
    assert "6 trials; every point is trained" in out
    assert "rank 8, learning_rate 0.0001" in err
    best = yaml.safe_load(Path("best.yaml").read_text())
    assert best == {
        "hyperparameters": {"rank": 16, "learning_rate": 0.001, "validation_share": 0.2}
    }
    found = told("sweep", "sweep.yaml")
    assert len(found["trials"]) == len(told("list")["runs"]) == 6
    assert found["best"] == best["hyperparameters"]
    ranked = found["trials"]
    assert ranked[0]["point"] == {"rank": 16, "learning_rate": 0.001}
    again = told("create", "train.jsonl", "--adapter", "other", "--spec", "best.yaml")
    assert again["spec"]["hyperparameters"]["rank"] == 16
    study = yaml.safe_load((Path(__file__).parents[2] / "studies/demo.yaml").read_text())
    study["training"] |= best
    Path("study.yaml").write_text(yaml.safe_dump(study))
    assert load_spec(Path("study.yaml")).training.hyperparameters.rank == 16


def test_the_command_says_how_many_trials_failed(runs):
    Path("sweep.yaml").write_text(GRID.replace("adapter: short", "adapter: bad"))
    code, out, _ = runs("sweep", "sweep.yaml", "--json")
    assert code == 1
    assert json.loads(out)["best"] is None


def test_optuna_is_asked_for_by_name_where_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    spec = SWEEP_FILE.parse(OPTUNA, "sweep.yaml")
    with pytest.raises(InvalidInput, match=r"pip install 'tuneproof\[sweep\]'"):
        search_of(spec)
