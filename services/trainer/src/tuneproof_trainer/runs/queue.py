"""Executes runs: claims the next one, looks after those that run, records how attempts end.

Trainers on one store share its runs. A trainer claims a waiting run by writing its next state, with
the next attempt number; only one can. When a worker falls silent, any trainer puts the run back.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from opentelemetry.context import Context
from opentelemetry.trace import StatusCode

from tuneproof.servicekit.errors import Corrupted, TuneproofError, Unavailable
from tuneproof.servicekit.processes import this_process
from tuneproof.servicekit.tracing import here, span
from tuneproof_trainer.execution.protocol import Attempt, Executor
from tuneproof_trainer.record import (
    Heartbeat,
    Job,
    RunState,
    WorkerEnding,
    WorkerResult,
)
from tuneproof_trainer.runs.leases import Leases
from tuneproof_trainer.runs.records import Records

_AGAIN_SECONDS = 1.0
"""Between two tries to record an end while the store does not answer."""

_WAITS = "the worker waits: "

_Action = Callable[[Attempt], Awaitable[WorkerResult]]

_log = structlog.get_logger(__name__)


@dataclass
class _Work:
    attempt: Attempt
    task: asyncio.Task[None]
    lost: str = ""
    """Why the worker counts as lost while its task still waits."""


class RunQueue:
    """This trainer's part in executing the runs of a store.

    Args:
        executor: where workers run.
        make_job: gives what a worker needs beside the spec, for a run's id.
        workers: how many run at the same time.
        max_attempts: the run fails after so many attempts in a row that ended early without a later
            checkpoint.
        sync_seconds: between two looks at the store.
        replica: this trainer's name, for people.
        now: the clock.
    """

    def __init__(
        self,
        records: Records,
        executor: Executor,
        make_job: Callable[[str], Job],
        leases: Leases,
        *,
        workers: int = 1,
        max_attempts: int = 3,
        sync_seconds: float = 2.0,
        replica: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._records = records
        self._store = records.store
        self._executor = executor
        self._make_job = make_job
        self._leases = leases
        self._workers = workers
        self._max_attempts = max_attempts
        self._sync_seconds = sync_seconds
        self._replica = replica or socket.gethostname()
        self._process = this_process()
        self._now = now
        self._work: dict[str, _Work] = {}
        self._origins: dict[str, Context] = {}
        self._nudge = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._closing = False
        self._obstacle = "the runs were not read yet; the service is starting"

    async def open(self) -> None:
        """Reads all runs, and begins to execute; a store that does not answer is asked again."""
        await self._look()
        self._loop = asyncio.create_task(self._keep_looking(), name="runs")

    async def check(self) -> None:
        """Raises Unavailable while runs cannot be read or executed."""
        if self._loop is None or self._obstacle:
            raise Unavailable(self._obstacle or "the service is stopping: it begins no more runs")

    async def close(self) -> None:
        """Stops the workers of this trainer, unless they outlive it; their runs wait again, for
        this trainer's next start or another trainer."""
        self._closing = True
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait([self._loop])
            self._loop = None
        stopped = dict(self._work)
        await self._stop(*stopped.values())
        if self._executor.outlives_service:
            return
        for work in stopped.values():
            with suppress(Unavailable, Corrupted):  # Else others see that its worker is gone.
                result = await self._result(work.attempt)
                if result is None or result.ending is WorkerEnding.STOPPED:
                    reason = "the service stopped; goes on from its last checkpoint"
                    await self._advance(work.attempt, state=RunState.QUEUED, reason=reason)
                else:
                    await self._record(work.attempt, result)

    def expect(self, run_id: str) -> None:
        """A run is about to be created here: its trace is that of the caller."""
        self._origins[run_id] = here()

    def nudge(self) -> None:
        """Looks at the store soon."""
        self._nudge.set()

    async def cancel(self, run_id: str) -> None:
        """Ends a run that has not ended as CANCELLED, after its worker here has ended. A worker
        of another trainer stops when it next renews its heartbeat.

        Raises:
            Unavailable: when the store does not answer.
        """
        while (record := await self._records.reload(run_id)) is not None:
            if record.status.state.ended:
                return
            if (work := self._work.get(run_id)) is not None:
                work.attempt.saves = False
                await self._stop(work)
                if self._records[run_id].status.state.ended:
                    return
            attempt = Attempt(self._records[run_id].status, None)
            if attempt.status.state is RunState.RUNNING:
                result = await self._result(attempt)
                if result is not None and result.ending is WorkerEnding.DONE:
                    await self._record(attempt, result)  # It was faster than the call.
                    continue
            await self._end(attempt, RunState.CANCELLED, "cancelled by a caller")

    async def _keep_looking(self) -> None:
        while not self._closing:
            # Not `wait_for`: Python 3.11's loses a cancellation that comes together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._sync_seconds):
                    await self._nudge.wait()
            self._nudge.clear()
            await self._look()

    async def _look(self) -> None:
        """Looks at all runs once."""
        try:
            await self._records.refresh()
            if self._obstacle:
                self._leases.store_was_away()
            self._obstacle = ""
            await self._look_after()
            await self._claim()
        except Unavailable as error:
            if not self._obstacle:
                _log.warning("runs not read", error=error.message)
            self._obstacle = error.message
        except Exception:  # noqa: BLE001 - one run's trouble does not stop the others
            _log.exception("runs not looked after")

    async def _look_after(self) -> None:
        running = self._records.statuses(RunState.RUNNING)
        self._leases.keep(status.id for status in running)
        for status in running:
            work = self._work.get(status.id)
            if work is not None and work.attempt.number == status.attempt:
                await self._look_at_own(work)
            elif work is None:
                await self._look_at_other(Attempt(status, None))
        for run_id, work in list(self._work.items()):
            record = self._records.get(run_id)
            if record is None or (record.status.state, record.status.attempt) != (
                RunState.RUNNING,
                work.attempt.number,
            ):
                # Cancelled, or taken over by another trainer.
                work.attempt.saves = False
                work.task.cancel()

    async def _look_at_own(self, work: _Work) -> None:
        heartbeat = await self._heartbeat(work.attempt)
        waits = None if heartbeat else self._executor.waits_for(work.attempt)
        await self._tell_waiting(work.attempt, waits)
        if waits is not None:
            return
        lost = self._leases.silence(work.attempt.status, heartbeat)
        if lost and not work.lost and await self._result(work.attempt) is None:
            await self._try_writing()
            work.lost = lost
            work.attempt.saves = False
            work.task.cancel()

    async def _tell_waiting(self, attempt: Attempt, waits: str | None) -> None:
        """Says in the run's reason what its worker waits for, until it begins."""
        before = self._records[attempt.run_id].status.reason
        reason = "" if before.startswith(_WAITS) else before
        if waits:
            reason = _WAITS + waits
        if reason != before:
            await self._advance(attempt, reason=reason)

    async def _look_at_other(self, attempt: Attempt) -> None:
        if (result := await self._result(attempt)) is not None:
            await self._record(attempt, result)
            return
        heartbeat = await self._heartbeat(attempt)
        if self._executor.can_follow(attempt.status, heartbeat):
            self._begin(attempt, self._executor.follow)
            return
        if heartbeat is None and attempt.status.executor != "local":
            return  # It may wait for its place in the cluster; only its executor knows.
        if lost := self._leases.obstacle(attempt.status, heartbeat):
            await self._try_writing()
            # It may have ended between the two looks.
            result = await self._result(attempt)
            await self._record(
                attempt, result or WorkerResult(ending=WorkerEnding.RETRY, reason=lost)
            )

    async def _try_writing(self) -> None:
        """Raises Unavailable when workers are silent because the store takes no writes."""
        await asyncio.to_thread(self._store.try_writing)

    async def _claim(self) -> None:
        for status in self._records.statuses(RunState.QUEUED):
            if len(self._work) >= self._workers:
                return
            if status.id in self._work:
                continue  # Its last attempt is being put away.
            changes: dict[str, object] = {
                "state": RunState.RUNNING,
                "attempt": status.attempt + 1,
                "start_time": status.start_time or self._now(),
                "replica": self._replica,
                "replica_process": self._process,
                "executor": self._executor.name,
            }
            if not await self._records.advance(status.id, **changes):
                continue
            claimed = self._records[status.id].status
            try:
                attempt = Attempt(claimed, self._make_job(status.id))
            except TuneproofError as error:
                result = WorkerResult(ending=WorkerEnding.BAD_INPUT, reason=error.message)
                await self._record(Attempt(claimed, None), result)
                continue
            self._begin(attempt, self._executor.execute)

    def _begin(self, attempt: Attempt, action: _Action) -> None:
        task = asyncio.create_task(self._carry_out(attempt, action), name=f"run {attempt.run_id}")
        self._work[attempt.run_id] = _Work(attempt, task)

    async def _carry_out(self, attempt: Attempt, action: _Action) -> None:
        # A run may begin when another one ends; its trace is that of the call that created it.
        origin = self._origins.pop(attempt.run_id, None)
        try:
            with span("run", {"tuneproof.run": attempt.run_id}, within=origin) as traced:
                await self._settle(attempt, await self._result_of(attempt, action))
                record = self._records.get(attempt.run_id)
                if record is not None:
                    traced.set_attribute("tuneproof.run.state", str(record.status.state))
                    if record.status.state is RunState.FAILED:
                        traced.set_status(StatusCode.ERROR, record.status.reason)
                    elif not record.status.state.ended and origin is not None:
                        self._origins[attempt.run_id] = origin
        finally:
            del self._work[attempt.run_id]
            self._nudge.set()

    async def _result_of(self, attempt: Attempt, action: _Action) -> WorkerResult:
        try:
            return await action(attempt)
        except asyncio.CancelledError:
            lost = self._work[attempt.run_id].lost
            if not lost:
                raise
            return WorkerResult(ending=WorkerEnding.RETRY, reason=lost)
        except Unavailable as error:
            return WorkerResult(ending=WorkerEnding.RETRY, reason=error.message)
        except Exception as error:  # noqa: BLE001 - it fails the run, and not the queue
            _log.exception("run could not be executed", run=attempt.run_id)
            reason = f"the worker could not be started: {error}"
            return WorkerResult(ending=WorkerEnding.BAD_INPUT, reason=reason)

    async def _settle(self, attempt: Attempt, result: WorkerResult) -> None:
        """Records how an attempt ended, as soon as the store takes it."""
        while True:
            try:
                await self._record(attempt, result)
            except Unavailable:
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return

    async def _record(self, attempt: Attempt, result: WorkerResult) -> None:
        """Records how an attempt ended, unless another trainer did."""
        if result.ending is WorkerEnding.DONE:
            made = result.model_dump(include={"adapter_ref", "provenance"})
            await self._end(attempt, RunState.SUCCEEDED, "", **made)
            return
        if result.ending is WorkerEnding.BAD_INPUT:
            await self._end(attempt, RunState.FAILED, result.reason)
            return
        step = await asyncio.to_thread(self._store.checkpoint_step, attempt.run_id)
        went_on = step > attempt.status.checkpoint_step
        ends = 0 if went_on else attempt.status.early_ends
        # Who was told to stop, as by an eviction, has not failed.
        ends += result.ending is not WorkerEnding.STOPPED
        _log.warning("worker ended early", run=attempt.run_id, times=ends, reason=result.reason)
        if ends >= self._max_attempts:
            said = f"{ends} workers ended early; the last: {result.reason}"
            await self._end(attempt, RunState.FAILED, said)
            return
        how = f"goes on from step {step}" if step else "begins again"
        await self._advance(
            attempt,
            state=RunState.QUEUED,
            reason=f"{how}: {result.reason}",
            early_ends=ends,
            checkpoint_step=step,
        )

    async def _end(self, attempt: Attempt, state: RunState, reason: str, **more: object) -> None:
        heartbeat = await self._heartbeat(attempt)
        step = heartbeat.step if heartbeat else None
        if await self._advance(
            attempt, state=state, reason=reason, end_time=self._now(), last_step=step, **more
        ):
            _log.info("run ended", run=attempt.run_id, state=str(state), reason=reason)

    async def _advance(self, attempt: Attempt, **changes: object) -> bool:
        """Changes a run's state while it is that of the attempt.

        Raises:
            Unavailable: when the store does not answer.
        """
        mine = (attempt.status.state, attempt.number)
        while (record := self._records.get(attempt.run_id)) is not None:
            if (record.status.state, record.status.attempt) != mine:
                return False
            if await self._records.advance(attempt.run_id, **changes):
                self._nudge.set()
                return True
        return False

    async def _stop(self, *works: _Work) -> None:
        for work in works:
            work.task.cancel()
        if works:
            await asyncio.wait([work.task for work in works])

    async def _result(self, attempt: Attempt) -> WorkerResult | None:
        return await asyncio.to_thread(
            self._store.read, WorkerResult, attempt.run_id, attempt.number
        )

    async def _heartbeat(self, attempt: Attempt) -> Heartbeat | None:
        return await asyncio.to_thread(self._store.read, Heartbeat, attempt.run_id, attempt.number)
