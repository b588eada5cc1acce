"""The queue of runs: a fixed number of workers at a time, first come, first served.

This is the only writer of state.json.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

import structlog
from opentelemetry.context import Context
from opentelemetry.trace import StatusCode

from tuneproof.servicekit.errors import Unavailable
from tuneproof.servicekit.tracing import here, span
from tuneproof_trainer.executor import Executor
from tuneproof_trainer.record import Job, RunFolder, RunState, RunStatus, WorkerEnding, WorkerResult
from tuneproof_trainer.spec import RunSpec

_log = structlog.get_logger(__name__)


class RunQueue:
    """Knows every run's spec and state, and executes those that have not ended.

    Args:
        executor: where workers run.
        make_job: gives what a worker needs beside the spec, for a run's id.
        workers: how many run at the same time.
        max_attempts: attempts of a run; it fails once this many of its workers died.
        now: the clock.
    """

    def __init__(
        self,
        executor: Executor,
        make_job: Callable[[str], Job],
        *,
        workers: int = 1,
        max_attempts: int = 3,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._executor = executor
        self._make_job = make_job
        self._workers = workers
        self._max_attempts = max_attempts
        self._now = now
        self.specs: dict[str, RunSpec] = {}
        self.statuses: dict[str, RunStatus] = {}
        self._folders: dict[str, RunFolder] = {}
        self._origins: dict[str, Context] = {}
        self._waiting: deque[str] = deque()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._change = asyncio.Event()
        self._open = False

    def adopt(self, folder: RunFolder, spec: RunSpec, status: RunStatus) -> None:
        """Adds a run from its folder. One that was running goes to the front: its worker may be
        alive."""
        self._folders[status.id] = folder
        self.specs[status.id] = spec
        self.statuses[status.id] = status
        self._origins[status.id] = here()
        if status.state is RunState.RUNNING:
            self._waiting.appendleft(status.id)
        elif status.state is RunState.QUEUED:
            places = [self.statuses[run].create_time for run in self._waiting]
            later = sum(time > status.create_time for time in places)
            self._waiting.insert(len(places) - later, status.id)
        self._fill()

    def open(self) -> None:
        """Begins to execute."""
        self._open = True
        self._fill()

    async def check(self) -> None:
        """Raises Unavailable while the queue is closed."""
        if not self._open:
            raise Unavailable("the queue of runs is closed; the service is starting or stopping")

    async def close(self) -> None:
        """Stops every worker; their runs wait for the next start of the service."""
        self._open = False
        running = dict(self._running)
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)
        for run_id in running:
            if not self.statuses[run_id].state.ended:
                self._set(run_id, state=RunState.QUEUED, reason="the service stopped; begins again")

    async def cancel(self, run_id: str) -> None:
        """Ends a run that has not ended as CANCELLED, after its worker has ended."""
        if run_id in self._waiting:
            self._waiting.remove(run_id)
        task = self._running.get(run_id)
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if self.statuses[run_id].state.ended:
            return
        result = self._folders[run_id].result()
        if result and result.ending is WorkerEnding.DONE:
            self._again(run_id, result)  # It finished before the call could stop it.
        else:
            self._end(run_id, RunState.CANCELLED, "cancelled by a caller")

    async def changed(self, run_id: str, status: RunStatus, seconds: float) -> None:
        """Waits until a run's status is no longer this one, for `seconds` at most."""
        if self.statuses[run_id] is status:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._change.wait(), seconds)

    def _fill(self) -> None:
        while self._open and self._waiting and len(self._running) < self._workers:
            run_id = self._waiting.popleft()
            task = asyncio.create_task(self._execute(run_id), name=f"run {run_id}")
            self._running[run_id] = task
            task.add_done_callback(partial(self._leave, run_id))

    def _leave(self, run_id: str, task: asyncio.Task[None]) -> None:
        del self._running[run_id]
        if not task.cancelled() and (error := task.exception()):
            _log.error("run could not be executed", run=run_id, exc_info=error)
            self._end(run_id, RunState.FAILED, f"the worker could not be started: {error}")
        self._fill()

    async def _execute(self, run_id: str) -> None:
        # A run may begin when another one ends; its trace is that of the call that created it.
        origin = self._origins.pop(run_id, None)
        with span("run", {"tuneproof.run": run_id}, within=origin) as traced:
            await self._attempt(run_id)
            ended = self.statuses[run_id]
            traced.set_attribute("tuneproof.run.state", str(ended.state))
            if ended.state is RunState.FAILED:
                traced.set_status(StatusCode.ERROR, ended.reason)

    async def _attempt(self, run_id: str) -> None:
        while True:
            status = self.statuses[run_id]
            begun = status.start_time or self._now()
            self._set(run_id, state=RunState.RUNNING, start_time=begun)
            result = await self._executor.execute(self._folders[run_id], self._make_job(run_id))
            if not self._again(run_id, result):
                return

    def _again(self, run_id: str, result: WorkerResult) -> bool:
        """Records how an attempt ended; whether another follows."""
        if result.ending is WorkerEnding.DONE:
            made = result.model_dump(include={"adapter_ref", "provenance"})
            self._end(run_id, RunState.SUCCEEDED, "", **made)
            return False
        if result.ending is WorkerEnding.BAD_INPUT:
            self._end(run_id, RunState.FAILED, result.reason)
            return False
        ends = self.statuses[run_id].early_ends + 1
        _log.warning("worker ended early", run=run_id, times=ends, reason=result.reason)
        self._set(run_id, reason=f"begins again: {result.reason}", early_ends=ends)
        if ends < self._max_attempts:
            return True
        self._end(run_id, RunState.FAILED, f"{ends} workers ended early; the last: {result.reason}")
        return False

    def _end(self, run_id: str, state: RunState, reason: str, **more: object) -> None:
        self._set(run_id, state=state, reason=reason, end_time=self._now(), **more)
        _log.info("run ended", run=run_id, state=str(state), reason=reason)

    def _set(self, run_id: str, **changes: object) -> None:
        changed = self.statuses[run_id].model_copy(update=changes)
        self._folders[run_id].write(changed)
        self.statuses[run_id] = changed
        self._change.set()
        self._change = asyncio.Event()
