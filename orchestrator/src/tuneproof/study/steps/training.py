"""Step: one adapter for each tuned cell."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.results import Training
from tuneproof.sdk import RunInfo, RunSpec, TrainerClient
from tuneproof.sdk.datasets import store_data
from tuneproof.servicekit.errors import AlreadyExists, Internal, TuneproofError, Unavailable
from tuneproof.servicekit.tracing import span
from tuneproof.study.design.plan import PlannedCell
from tuneproof.study.services import Services
from tuneproof.study.state.store import Task
from tuneproof.study.steps.chain import Chain
from tuneproof.study.steps.tally import Piece, Tally
from tuneproof.study.steps.work import persist

_MOST_TRIES = 50
_PATIENCE = 45.0
"""Seconds for which the trainer may be away before it is started again."""


class Trainings:
    """Adapters by training, each trained once.

    Args:
        artifacts: the artifact store that the trainer reads: a folder, or a URL of fsspec.
        at_once: most runs that the trainer has at once; it may queue some of them.
    """

    def __init__(
        self, chain: Chain, services: Services, tally: Tally, *, artifacts: str, at_once: int
    ) -> None:
        self._chain = chain
        self._services = services
        self._tally = tally
        self._artifacts = artifacts
        self._places = asyncio.Semaphore(at_once)

    async def adapter(self, task: Task, cells: Sequence[PlannedCell]) -> str | None:
        """The adapter of a training, which is run where it has no output yet.

        Args:
            cells: all that use it.

        Returns:
            `name@sha256:<hex>`, or None where the training failed; the state notes why.

        Raises:
            Unavailable: the trainer was lost several times in a row.
        """
        output = self._chain.state.get(task.key)
        if output is None:
            async with self._places:
                piece = Piece(task)
                piece.add(self._tally, len(cells))
                with span("training"), piece.in_hand():
                    step = partial(self._train, piece, cells[0])
                    await persist(step, recover=self._services.recover)
            output = self._chain.state.get(task.key)
        return None if output is None else str(output["adapter_ref"])

    async def _train(self, piece: Piece, cell: PlannedCell) -> None:
        state = self._chain.state
        try:
            run = await self._run(cell, piece.task)
        except Unavailable:
            raise
        except TuneproofError as error:
            piece.fail(state, error.message)
            piece.note(f"{cell.name} failed: {error.message}")
            return
        if run.state != "succeeded":
            piece.fail(state, f"training {run.id} {run.state}: {run.reason}")
            piece.note(f"{cell.name} {run.state}: {run.reason}")
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
        piece.keep(state, asdict(training))

    async def _run(self, cell: PlannedCell, task: Task) -> RunInfo:
        chain = self._chain
        data = chain.training_data(cell)
        assert data is not None, "a training task exists only with its data"  # noqa: S101
        path, digest = await asyncio.to_thread(store_data, self._artifacts, data)
        spec = RunSpec(
            adapter_name=cell.adapter,
            data_path=path,
            data_digest=digest,
            base_model=chain.identities.of(cell.model).served,
            seed=cell.seed,
            # All of them are set and so are sent, the defaults of the study file too.
            hyperparameters=Hyperparameters(**cell.hyperparameters.model_dump()),
        )
        trainer = await self._services.trainer()
        run = await _create(trainer, task, spec)
        if run.ended:
            return run

        def show(now: RunInfo) -> None:
            at = now.progress
            if at.total_steps:
                self._tally.note(f"{cell.name} step {at.step}/{at.total_steps} loss {at.loss:.2f}")
            else:
                self._tally.note(f"{cell.name} {now.state}")

        return await trainer.wait(run.id, on_progress=show, patience=_PATIENCE)


async def _create(trainer: TrainerClient, task: Task, spec: RunSpec) -> RunInfo:
    """The run of this training: the existing one, so that asking twice starts no second run, or a
    new one after the failed ones.

    The run's id stands for its content: where one has it under another adapter's name, an arm of
    the same content asked for it.
    """
    stem = f"r-{task.key.removeprefix('sha256:')[:24]}"
    for number in range(1, _MOST_TRIES + 1):
        name = stem if number == 1 else f"{stem}-{number}"
        try:
            run = await trainer.create(name, spec)
        except AlreadyExists:
            run = await trainer.get(name)
        if run.state not in {"failed", "cancelled"}:
            return run
    raise Internal(f"training {stem} failed {_MOST_TRIES} times: {run.reason}")


def _values_of(spec: RunSpec) -> dict[str, object]:
    values: dict[str, object] = asdict(spec)
    del values["hyperparameters"]
    return values | spec.hyperparameters.model_dump(mode="json")
