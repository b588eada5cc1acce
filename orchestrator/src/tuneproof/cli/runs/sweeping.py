"""`tuneproof runs sweep`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from tuneproof.cli.asking import AskedTrainer
from tuneproof.cli.console import ExitCode, out, say
from tuneproof.cli.options import takes_options
from tuneproof.cli.runs.asking import ArtifactsOption, beside, put_data, store_of
from tuneproof.cli.runs.figures import short_ref, validation_loss_of, words_of
from tuneproof.cli.runs.tables import columns, lasting, summary_of
from tuneproof.sdk import RunInfo, RunSpec
from tuneproof.servicekit.files import write_atomically
from tuneproof.sweeps.running import Sweep, SweepResult, Trial
from tuneproof.sweeps.search import Point, search_of
from tuneproof.sweeps.spec import SWEEP_FILE, SweepSpec

_SECONDS_BETWEEN_LINES = 5.0
_ENDINGS = {
    "search": "every point is trained",
    "trials": "the budget's trials are made",
    "hours": "the budget's hours are spent",
}
_GOES_ON = "the runs under way go on; the same command takes the sweep up again"


def sweep_command(
    asked: AskedTrainer,
    file: Annotated[Path, typer.Argument(help="The sweep's file (YAML).")],
    *,
    write: Annotated[
        Path | None,
        typer.Option("--out", help="Where the best hyper-parameters go; by default none."),
    ] = None,
    artifacts: ArtifactsOption = "",
) -> None:
    """Train with several hyper-parameters, and rank them by their validation loss.

    Part of the training data validates; test questions are never read. Each trial is a run, whose
    id stands for its content: kill the sweep and start it again, and nothing is trained twice.

    Exits with 3 when trials failed, with 1 when all of them did.

    Examples:

      tuneproof runs sweep sweep.yaml --out best.yaml

    The file names the data, what all trials share, and what varies:

      {sweep: ranks, data: train.jsonl, adapter: short, hyperparameters: {validation_share: 0.1},
      search: {rank: [8, 16, 64], learning_rate: [1e-4, 2e-4]}}

    With `method: optuna` a value may be a range, and a budget says when to end:

      search: {learning_rate: {low: 1e-5, high: 1e-3, log: true}}, budget: {trials: 20, hours: 2}
    """
    spec = SWEEP_FILE.load(file)
    search = search_of(spec)
    store = store_of(asked, artifacts)
    base = _shared(spec, file, store)
    tell = _Telling(say, spec)
    result = asked.run(
        lambda client: Sweep(
            client, spec, search, base, loss_of=validation_loss_of, on_change=tell
        ).run()
    )
    if write is not None and result.best is not None:
        write_atomically(write, best_yaml(spec, result).encode())
    asked.give(_value_of(result), lambda: _show(spec, result, write))
    failed = [each for each in result.trials if each.loss is None]
    if failed:
        raise SystemExit(ExitCode.FAILED if result.best is None else ExitCode.PARTLY)


def _shared(spec: SweepSpec, file: Path, store: str) -> RunSpec:
    """What all trials share, their files in the artifact store."""
    data, validation, held_out = (
        put_data(beside(file, each), store) for each in (spec.data, spec.validation, spec.held_out)
    )
    return RunSpec(
        adapter_name=spec.adapter,
        data_path=data[0],
        data_digest=data[1],
        base_model=spec.base_model,
        seed=spec.seed,
        validation_path=validation[0],
        validation_digest=validation[1],
        held_out_path=held_out[0],
        held_out_digest=held_out[1],
    )


def best_yaml(spec: SweepSpec, result: SweepResult) -> str:
    """The best trial's hyper-parameters, as `training` of a study file and `--spec` of `runs
    create` take them."""
    assert result.best is not None, "asked of sweeps with a best trial"  # noqa: S101
    best = result.trials[0]
    head = (
        f"# Sweep {spec.sweep}: the best of {len(result.trials)} trials by validation loss,"
        f" {best.loss:.4f} nats per token.\n# Run {best.run_id}, adapter {best.adapter_ref}.\n"
    )
    values = result.best.model_dump(mode="json", exclude_unset=True)
    return head + yaml.safe_dump({"hyperparameters": values}, sort_keys=False)


class _Telling:
    """A line when a trial begins or ends, and now and then between."""

    def __init__(
        self,
        emit: Callable[[str], None],
        spec: SweepSpec,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._emit, self._clock = emit, clock
        self._spec = spec
        self._states: dict[str, str] = {}
        self._last = 0.0

    def __call__(self, run: RunInfo, point: Point) -> None:
        now = self._clock()
        is_new = self._states.get(run.id) != run.state
        if not is_new and now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._states[run.id], self._last = run.state, now
        self._emit(f"{run.id}  {point_words(point)}  {summary_of(run)}")


def point_words(point: Point) -> str:
    """`rank 8, learning_rate 0.0001`."""
    return ", ".join(f"{name} {words_of(value)}" for name, value in point.items())


def _value_of(result: SweepResult) -> dict[str, Any]:
    best = result.best.model_dump(mode="json", exclude_unset=True) if result.best else None
    return {**asdict(result), "best": best}


def _show(spec: SweepSpec, result: SweepResult, written: Path | None) -> None:
    names = list(spec.search)
    heads = ["validation loss", *names, "time", "adapter, or why"]
    columns([(each.run_id, _row(each, names)) for each in result.trials], heads)
    out.print(f"\n{len(result.trials)} trials; {_ENDINGS[result.ended_by]}", markup=False)
    if result.best is None:
        out.print("no trial has a validation loss", markup=False)
        return
    out.print(f"the best{f', written to {written}' if written else ''}:\n", markup=False)
    out.print(best_yaml(spec, result), markup=False)


def _row(trial: Trial, names: list[str]) -> list[str]:
    return [
        "" if trial.loss is None else f"{trial.loss:.4f}",
        *(words_of(trial.point.get(name)) for name in names),
        lasting(trial.seconds) if trial.seconds else "",
        short_ref(trial.adapter_ref) or f"{trial.state}: {trial.reason}",
    ]


command = takes_options(sweep_command, on_interrupt=_GOES_ON)
