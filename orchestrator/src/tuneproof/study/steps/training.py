"""Step: one adapter for each tuned cell."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path

import fsspec

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.results import Training
from tuneproof.sdk import RunInfo, RunSpec, TrainerClient
from tuneproof.servicekit.digests import sha256_of_bytes
from tuneproof.servicekit.errors import TuneproofError, Unavailable
from tuneproof.servicekit.files import write_atomically
from tuneproof.study.design.plan import PlannedCell
from tuneproof.study.progress import Progress, Stage
from tuneproof.study.services import Services
from tuneproof.study.state.store import Task
from tuneproof.study.steps.chain import Chain

_MOST_TRIES = 50
_PATIENCE = 45.0
"""Seconds for which the trainer may be away before it is started again."""


@dataclass(frozen=True, slots=True)
class _Desk:
    """What every training needs."""

    chain: Chain
    trainer: TrainerClient
    artifacts: str
    stage: Stage


async def train(chain: Chain, services: Services, progress: Progress, artifacts: str) -> None:
    """Trains what is not trained yet. The state notes a training that fails; the others go on.

    Args:
        artifacts: the artifact store that the trainer reads: a folder, or a URL of fsspec.
    """
    tasks = chain.training_tasks()
    missing = chain.state.missing(tasks.values())
    if not missing:
        return
    distinct = len({task.key for task in tasks.values()})
    with progress.stage("training", distinct, distinct - len(missing)) as stage:
        trainer = await services.trainer()
        desk = _Desk(chain, trainer, artifacts, stage)
        cells = {tasks[cell.name].key: cell for cell in chain.plan.tuned if cell.name in tasks}
        trainings = [
            asyncio.create_task(_train_cell(desk, cells[task.key], task)) for task in missing
        ]
        try:
            await asyncio.gather(*trainings)
        finally:
            for training in trainings:
                training.cancel()
            await asyncio.gather(*trainings, return_exceptions=True)


async def _train_cell(desk: _Desk, cell: PlannedCell, task: Task) -> None:
    chain, stage = desk.chain, desk.stage
    try:
        run = await _run(desk, cell, task)
    except Unavailable:
        raise
    except TuneproofError as error:
        chain.state.fail(task, error.message)
        stage.note(f"{cell.name} failed: {error.message}")
        return
    if run.state != "succeeded":
        chain.state.fail(task, f"training {run.id} {run.state}: {run.reason}")
        stage.note(f"{cell.name} {run.state}: {run.reason}")
        return
    training = Training(
        run_id=run.id,
        adapter_ref=run.adapter_ref,
        spec=_values_of(run.spec),
        losses=run.losses,
        provenance=dict(run.provenance),
        examples=len(cell.items),
        seconds=run.seconds,
    )
    chain.state.put(task, asdict(training))
    stage.advance()


async def _run(desk: _Desk, cell: PlannedCell, task: Task) -> RunInfo:
    chain, trainer, stage = desk.chain, desk.trainer, desk.stage
    data = chain.training_data(cell)
    assert data is not None, "a training task exists only with its data"  # noqa: S101
    digest = sha256_of_bytes(data)
    path = f"datasets/{digest.removeprefix('sha256:')}.jsonl"
    await asyncio.to_thread(_store, desk.artifacts, path, data)
    spec = RunSpec(
        adapter_name=cell.name,
        data_path=path,
        data_digest=digest,
        base_model=chain.identities.model_name,
        seed=cell.seed,
        # All of them are set and so are sent, the defaults of the study file too.
        hyperparameters=Hyperparameters(**cell.hyperparameters.model_dump()),
    )
    run = await _create(trainer, task, spec)
    if run.ended:
        return run

    def show(now: RunInfo) -> None:
        at = now.progress
        if at.total_steps:
            stage.note(f"{cell.name} step {at.step}/{at.total_steps} loss {at.loss:.2f}")
        else:
            stage.note(f"{cell.name} {now.state}")

    return await trainer.wait(run.id, on_progress=show, patience=_PATIENCE)


async def _create(trainer: TrainerClient, task: Task, spec: RunSpec) -> RunInfo:
    """The run of this training: the existing one, so that asking twice starts no second run, or a
    new one after the failed ones."""
    stem = f"r-{task.key.removeprefix('sha256:')[:24]}"
    for number in range(1, _MOST_TRIES + 1):
        run = await trainer.create(stem if number == 1 else f"{stem}-{number}", spec)
        if run.state not in {"failed", "cancelled"}:
            return run
    raise Unavailable(f"training {stem} failed {_MOST_TRIES} times: {run.reason}")


def _store(artifacts: str, path: str, data: bytes) -> None:
    filesystem, root = fsspec.core.url_to_fs(artifacts)
    target = f"{root.rstrip('/')}/{path}"
    if filesystem.exists(target):
        return
    if "file" in filesystem.protocol:
        write_atomically(Path(target), data)
    else:
        filesystem.pipe_file(target, data)


def _values_of(spec: RunSpec) -> dict[str, object]:
    values: dict[str, object] = asdict(spec)
    del values["hyperparameters"]
    return values | spec.hyperparameters.model_dump(mode="json")
