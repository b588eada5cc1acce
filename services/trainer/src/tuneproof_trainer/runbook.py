"""All runs of one trainer: creating, finding, stopping and watching them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from tuneproof.adapters.storage import Storage
from tuneproof.servicekit.errors import (
    AlreadyExists,
    Corrupted,
    InvalidInput,
    NotFound,
    WrongState,
)
from tuneproof.servicekit.locks import Holder, locked
from tuneproof.servicekit.paging import page
from tuneproof_trainer.bases import Base, base_of
from tuneproof_trainer.defaults import complete
from tuneproof_trainer.examples import load_for_training
from tuneproof_trainer.plan.device import CPU, Device
from tuneproof_trainer.progress import Step, StepReader, last_step
from tuneproof_trainer.queue import RunQueue
from tuneproof_trainer.record import RunFolder, RunState, RunStatus
from tuneproof_trainer.spec import RunSpec

_ID = re.compile(r"[a-z][a-z0-9-]{0,62}")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class RunView:
    """A run as it is at a moment."""

    spec: RunSpec
    status: RunStatus
    progress: Step | None
    losses: tuple[Step, ...] = ()
    """Oldest first."""


class Runbook:
    """Every run in a folder. Only one per folder, called from one event loop.

    Args:
        runs: the folder of the runs' folders.
        bases: the models that are tuned, by name.
        store: the artifact store, where training data is.
        queue: what executes the runs.
        device: what runs train on.
        poll_seconds: between two looks at a run that is watched.
        now: the clock.
    """

    def __init__(
        self,
        runs: Path,
        bases: Mapping[str, Base],
        store: Storage,
        queue: RunQueue,
        *,
        device: Device = CPU,
        poll_seconds: float = 0.25,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._runs = runs
        self._bases = bases
        self._store = store
        self._queue = queue
        self._device = device
        self._poll = poll_seconds
        self._now = now
        self._creating = asyncio.Lock()

    def recover(self) -> None:
        """Takes up every run on disk. Runs that have not ended wait for a worker again, or keep
        their live one. Folders that cannot be read are left out and logged."""
        for path in sorted(self._runs.glob("[a-z]*/")):
            folder = RunFolder(path)
            try:
                spec, status = folder.spec(), folder.status()
            except Corrupted as error:
                _log.error("run left out", run=path.name, reason=error.message)
                continue
            self._queue.adopt(folder, spec, status)

    async def create(self, run_id: str, spec: RunSpec) -> RunView:
        """Queues a run, or finds the one that was made with this id and spec.

        Raises:
            InvalidInput: for a malformed id, mistakes in the spec, or bad data.
            AlreadyExists: when a run of this id has another spec.
        """
        if not _ID.fullmatch(run_id):
            raise InvalidInput(
                f"run id {run_id!r} is not 1 to 63 characters of a-z, 0-9 and `-`, beginning with "
                "a letter",
                field="run_id",
            )
        full = complete(spec, base_of(spec, self._bases), self._device)
        async with self._creating:
            if run_id in self._queue.specs:
                return self._repeat(run_id, full, spec)
            await asyncio.to_thread(load_for_training, self._store, full)
            status = RunStatus(id=run_id, state=RunState.QUEUED, create_time=self._now())
            folder = await asyncio.to_thread(RunFolder.create, self._runs, full, status)
            self._queue.adopt(folder, full, status)
        return self.get(run_id)

    def get(self, run_id: str) -> RunView:
        """A run with all its losses so far.

        Raises:
            NotFound: when there is none of that id.
        """
        folder = self._folder(run_id)
        steps = _one_each(StepReader(folder.metrics).read())
        return self._view(run_id, steps[-1] if steps else None, steps)

    def list_page(self, page_size: int, page_token: str) -> tuple[list[RunView], str]:
        """A page of runs, the newest first, without losses.

        Raises:
            InvalidInput: for an invalid page token or size.
        """
        statuses = sorted(self._queue.statuses.values(), key=_newest_first)
        chosen, token = page(statuses, page_size, page_token, _newest_first)
        views = [
            self._view(status.id, last_step(self._folder(status.id).metrics), [])
            for status in chosen
        ]
        return views, token

    def finished(self) -> list[Mapping[str, str]]:
        """The provenance of runs that succeeded, the newest first."""
        statuses = sorted(self._queue.statuses.values(), key=_newest_first)
        return [status.provenance for status in statuses if status.state is RunState.SUCCEEDED]

    async def cancel(self, run_id: str) -> RunView:
        """Stops a run and waits until its worker has ended.

        Raises:
            NotFound: when there is none of that id.
            WrongState: when it succeeded or failed.
        """
        self._folder(run_id)
        await self._queue.cancel(run_id)
        status = self._queue.statuses[run_id]
        if status.state is not RunState.CANCELLED:
            raise WrongState(
                f"run {run_id} has ended ({status.state}); it is too late to cancel it",
                run=run_id,
            )
        return self.get(run_id)

    async def watch(self, run_id: str, after_step: int) -> AsyncIterator[RunView]:
        """A run as it is now, then each change; ends when the run has ended.

        Args:
            after_step: gives only losses of later steps. Each view has the losses since the last.

        Raises:
            NotFound: when there is none of that id.
        """
        reader = StepReader(self._folder(run_id).metrics)
        told = after_step
        before: tuple[RunStatus, int] | None = None
        progress: Step | None = None
        while True:
            status = self._queue.statuses[run_id]  # Before the steps: an ended run has them all.
            steps = reader.read()
            progress = steps[-1] if steps else progress
            new = [step for step in _one_each(steps) if step.step > told]
            now = (status, progress.step if progress else 0)
            if now != before or new:
                yield self._view(run_id, progress, new, status)
                told = new[-1].step if new else told
                before = now
            if status.state.ended:
                return
            await self._queue.changed(run_id, status, self._poll)

    def _repeat(self, run_id: str, full: RunSpec, asked: RunSpec) -> RunView:
        existing = self._queue.specs[run_id]
        full = full.decided_as(existing, asked)
        if existing != full:
            raise AlreadyExists(
                f"run {run_id} exists with another spec: {', '.join(full.differing(existing))}"
                " differ; "
                "choose another id",
                run=run_id,
            )
        return self.get(run_id)

    def _folder(self, run_id: str) -> RunFolder:
        if run_id not in self._queue.specs:
            raise NotFound(f"no run {run_id!r}", run=run_id)
        return RunFolder(self._runs / run_id)

    def _view(
        self,
        run_id: str,
        progress: Step | None,
        losses: list[Step],
        status: RunStatus | None = None,
    ) -> RunView:
        chosen = status or self._queue.statuses[run_id]
        return RunView(self._queue.specs[run_id], chosen, progress, tuple(losses))


def hold_runs(runs: Path) -> AbstractContextManager[None]:
    """Holds the folder of all runs for this process while the block runs.

    Raises:
        WrongState: when another trainer has it.
    """

    def refuse(holder: Holder) -> WrongState:
        return WrongState(
            f"another trainer uses {runs} ({holder}); stop it, or give this one another folder"
            " with --runs"
        )

    return locked(runs / ".lock", refuse)


def _one_each(steps: list[Step]) -> list[Step]:
    """The newest of each step: those of earlier attempts are left out."""
    return sorted({step.step: step for step in steps}.values(), key=lambda step: step.step)


def _newest_first(status: RunStatus) -> str:
    age = 10**20 - int(status.create_time.timestamp() * 1e6)
    return f"{age:020d} {status.id}"
