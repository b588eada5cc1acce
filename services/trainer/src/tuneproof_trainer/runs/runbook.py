"""All runs of one store: creating, finding, stopping and watching them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tuneproof.adapters.storage import Storage
from tuneproof.servicekit.errors import (
    AlreadyExists,
    Corrupted,
    InvalidInput,
    NotFound,
    Unavailable,
    WrongState,
)
from tuneproof.servicekit.paging import page
from tuneproof_trainer.bases import Base, base_of
from tuneproof_trainer.defaults import complete
from tuneproof_trainer.examples import load_for_training
from tuneproof_trainer.plan.device import CPU, Device
from tuneproof_trainer.progress import Step
from tuneproof_trainer.record import Heartbeat, RunState, RunStatus
from tuneproof_trainer.runs.queue import RunQueue
from tuneproof_trainer.runs.records import Record, Records
from tuneproof_trainer.runs.store import RUN_ID
from tuneproof_trainer.runs.watching import Feed, Watching
from tuneproof_trainer.spec import RunSpec


@dataclass(frozen=True)
class RunView:
    """A run as it is at a moment."""

    spec: RunSpec
    status: RunStatus
    progress: Step | None
    losses: tuple[Step, ...] = ()
    """Oldest first."""
    heartbeat: Heartbeat | None = None
    """Of the newest attempt's worker."""


class Runbook:
    """Every run of a store, called from one event loop.

    Args:
        records: the runs as last read.
        bases: the models that are tuned, by name.
        data: the artifact store, where training data is.
        queue: what executes the runs.
        device: what runs train on.
        poll_seconds: between two looks at a run that is watched.
        now: the clock.
    """

    def __init__(
        self,
        records: Records,
        bases: Mapping[str, Base],
        data: Storage,
        queue: RunQueue,
        *,
        device: Device = CPU,
        poll_seconds: float = 0.25,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._records = records
        self._bases = bases
        self._data = data
        self._queue = queue
        self._device = device
        self._watching = Watching(records, poll_seconds)
        self._now = now

    async def create(self, run_id: str, spec: RunSpec) -> RunView:
        """Queues a run, or finds the one that was made with this id and spec.

        Raises:
            InvalidInput: for a malformed id, mistakes in the spec, or bad data.
            AlreadyExists: when a run of this id has another spec.
            Unavailable: when the store does not answer; the call may be repeated.
        """
        if not RUN_ID.fullmatch(run_id):
            raise InvalidInput(
                f"run id {run_id!r} is not 1 to 63 characters of a-z, 0-9 and `-`, beginning with "
                "a letter",
                field="run_id",
            )
        full = complete(spec, base_of(spec, self._bases), self._device)
        record = self._records.get(run_id) or await self._records.reload(run_id)
        if record is None:
            await asyncio.to_thread(load_for_training, self._data, full)
            self._queue.expect(run_id)
            status = RunStatus(id=run_id, state=RunState.QUEUED, create_time=self._now())
            record = await self._records.create(full, status)
            self._queue.nudge()
        if record is None:
            raise Unavailable(f"run {run_id} is being made by another call; repeat this one")
        full = full.decided_as(record.spec, spec)
        if record.spec != full:
            raise AlreadyExists(
                f"run {run_id} exists with another spec:"
                f" {', '.join(full.differing(record.spec))} differ; choose another id",
                run=run_id,
            )
        return await self.get(run_id)

    async def get(self, run_id: str) -> RunView:
        """A run with all its losses so far.

        Raises:
            NotFound: when there is none of that id.
            Unavailable: when the store does not answer.
        """
        record = await self._find(run_id)
        feed = await self._watching.read(record)
        return _view(feed, feed.steps)

    async def list_page(self, page_size: int, page_token: str) -> tuple[list[RunView], str]:
        """A page of runs, the newest first, without losses.

        Raises:
            InvalidInput: for an invalid page token or size.
            Unavailable: when the store does not answer.
        """
        statuses = sorted(self._records.statuses(), key=_newest_first)
        chosen, token = page(statuses, page_size, page_token, _newest_first)
        views = []
        for status in chosen:
            heartbeat = None
            if status.state is RunState.RUNNING:
                read = self._records.store.read
                heartbeat = await asyncio.to_thread(read, Heartbeat, status.id, status.attempt)
            step = heartbeat.step if heartbeat else status.last_step
            spec = self._records[status.id].spec
            views.append(RunView(spec, status, step, heartbeat=heartbeat))
        return views, token

    def finished(self) -> list[Mapping[str, str]]:
        """The provenance of runs that succeeded, the newest first."""
        statuses = self._records.statuses(RunState.SUCCEEDED)
        return [status.provenance for status in reversed(statuses)]

    async def cancel(self, run_id: str) -> RunView:
        """Stops a run; waits until its worker has ended, if this trainer started it.

        Raises:
            NotFound: when there is none of that id.
            WrongState: when it succeeded or failed.
            Unavailable: when the store does not answer.
        """
        await self._find(run_id)
        await self._queue.cancel(run_id)
        status = self._records[run_id].status
        if status.state is not RunState.CANCELLED:
            raise WrongState(
                f"run {run_id} has ended ({status.state}); it is too late to cancel it",
                run=run_id,
            )
        return await self.get(run_id)

    async def watch(self, run_id: str, after_step: int) -> AsyncIterator[RunView]:
        """A run as it is now, then each change; ends when the run has ended.

        Args:
            after_step: gives only losses of later steps. Each view has the losses since the last.

        Raises:
            NotFound: when there is none of that id.
            Unavailable: when the store does not answer at the beginning.
        """
        record = await self._find(run_id)
        told = after_step
        before: tuple[object, ...] | None = None
        async with self._watching.follow(record) as feed:
            while True:
                news = feed.news
                new = [step for step in feed.steps if step.step > told]
                warning = feed.heartbeat.warning if feed.heartbeat else ""
                now = (feed.record.version, feed.last_step, warning)
                if now != before or new:
                    yield _view(feed, new)
                    told = new[-1].step if new else told
                    before = now
                if feed.record.status.state.ended:
                    return
                await news.wait()

    async def _find(self, run_id: str) -> Record:
        record = self._records.get(run_id)
        if record is None and RUN_ID.fullmatch(run_id):
            try:
                record = await self._records.reload(run_id)
            except Corrupted as error:
                raise NotFound(f"run {run_id!r} cannot be read: {error.message}") from error
        if record is None:
            raise NotFound(f"no run {run_id!r}", run=run_id)
        return record


def _view(feed: Feed, losses: list[Step]) -> RunView:
    record = feed.record
    return RunView(record.spec, record.status, feed.last_step, tuple(losses), feed.heartbeat)


def _newest_first(status: RunStatus) -> str:
    age = 10**20 - int(status.create_time.timestamp() * 1e6)
    return f"{age:020d} {status.id}"
