"""Workers as processes of this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import structlog

from tuneproof.servicekit.errors import Unavailable
from tuneproof.servicekit.processes import is_running, pid_of
from tuneproof_trainer.execution.environment import variables_for
from tuneproof_trainer.execution.protocol import Attempt, by_exit_code, by_signal
from tuneproof_trainer.record import Heartbeat, Job, RunStatus, WorkerEnding, WorkerResult
from tuneproof_trainer.runs.store import RunStore, last_words
from tuneproof_trainer.worker.output import LOG

_log = structlog.get_logger(__name__)


class LocalExecutor:
    """Each worker is a process of its own, in a process group of its own.

    Args:
        store: where runs lie.
        scratch: folder for the workers' files; the system's temporary folder if None.
        grace_seconds: from SIGTERM to SIGKILL.
        poll_seconds: between two looks at a worker that another process started.
    """

    name = "local"
    outlives_service = False

    def __init__(
        self,
        store: RunStore,
        *,
        scratch: Path | None = None,
        grace_seconds: float = 10.0,
        poll_seconds: float = 0.2,
    ) -> None:
        self._store = store
        self._scratch = scratch
        self._grace = grace_seconds
        self._poll = poll_seconds

    async def execute(self, attempt: Attempt) -> WorkerResult:
        if attempt.job is None:
            raise ValueError("an attempt that is started needs its job")
        if self._scratch is not None:
            self._scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self._scratch, prefix=f"tuneproof-{attempt.run_id}."))
        try:
            await asyncio.to_thread(self._store.write, attempt.job, attempt.run_id, attempt.number)
            worker = await _start(attempt, attempt.job, folder)
            return await self._attend(attempt, worker, folder)
        except Unavailable as error:
            return WorkerResult(ending=WorkerEnding.RETRY, reason=error.message)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def follow(self, attempt: Attempt) -> WorkerResult:
        heartbeat = await self._heartbeat(attempt)
        process = heartbeat.process if heartbeat else ""
        try:
            while is_running(process):  # noqa: ASYNC110 - no event tells of another's child
                await asyncio.sleep(self._poll)
        except asyncio.CancelledError:
            await self._stop_stranger(attempt, process)
            raise
        return await self._result(attempt) or WorkerResult(
            ending=WorkerEnding.RETRY, reason="the worker was killed while no service watched it"
        )

    def can_follow(self, status: RunStatus, heartbeat: Heartbeat | None) -> bool:
        return (
            status.executor == self.name
            and heartbeat is not None
            and is_running(status.replica_process) is False
            and is_running(heartbeat.process) is True
        )

    def waits_for(self, attempt: Attempt) -> str | None:  # noqa: ARG002 - a process begins at once
        return None

    async def _attend(
        self, attempt: Attempt, worker: asyncio.subprocess.Process, folder: Path
    ) -> WorkerResult:
        try:
            code = await worker.wait()
        except asyncio.CancelledError:
            _signal_group(worker.pid, _signal_for(attempt))
            with suppress(TimeoutError):
                await asyncio.wait_for(worker.wait(), self._grace)
            _signal_group(worker.pid, signal.SIGKILL)
            await worker.wait()
            raise
        # Processes that the worker left behind would hold memory, or the GPU.
        _signal_group(worker.pid, signal.SIGKILL)
        log = (folder / LOG).read_bytes()
        result = await self._result(attempt)
        if result is not None:
            return result
        with suppress(Unavailable):  # The worker, being killed, did not store its last words.
            await asyncio.to_thread(self._store.write_log, log, attempt.run_id, attempt.number)
        words = last_words(log)
        return by_signal(-code, words) if code < 0 else by_exit_code(code, words)

    async def _stop_stranger(self, attempt: Attempt, process: str) -> None:
        number, left = _signal_for(attempt), self._grace
        while is_running(process):
            _signal_group(pid_of(process), number)
            await asyncio.sleep(self._poll)
            left -= self._poll
            if left <= 0:
                number = signal.SIGKILL

    async def _result(self, attempt: Attempt) -> WorkerResult | None:
        return await asyncio.to_thread(
            self._store.read, WorkerResult, attempt.run_id, attempt.number
        )

    async def _heartbeat(self, attempt: Attempt) -> Heartbeat | None:
        return await asyncio.to_thread(self._store.read, Heartbeat, attempt.run_id, attempt.number)


async def _start(attempt: Attempt, job: Job, folder: Path) -> asyncio.subprocess.Process:
    with (folder / LOG).open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tuneproof_trainer.worker"),
            *(job.artifacts, attempt.run_id, str(attempt.number), "--folder", str(folder)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **variables_for(job)},
            cwd=folder,
            start_new_session=True,
        )


def _signal_for(attempt: Attempt) -> signal.Signals:
    return signal.SIGTERM if attempt.saves else signal.SIGINT


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
