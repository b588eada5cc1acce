"""Where workers run: here, as processes of this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from tuneproof.servicekit import tracing
from tuneproof.servicekit.locks import FileLock
from tuneproof_trainer.record import EXIT_CODES, Job, RunFolder, WorkerEnding, WorkerResult

_CODES = {code: ending for ending, code in EXIT_CODES.items()}

# glibc gives each large tensor fresh pages and takes them back at once: on a CPU the page faults
# were a fifth of a step. Bytes.
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


class Executor(Protocol):
    """Runs a run's worker to its end, one attempt."""

    async def execute(self, folder: RunFolder, job: Job) -> WorkerResult:
        """Starts the run's worker, or finds the live one, and waits for its end.

        When the call is cancelled, it stops the worker and returns when that has ended.

        Returns:
            how it ended; RETRY when it was killed or could not be started.
        """


@dataclass(frozen=True)
class LocalExecutor:
    """Each worker is a process of its own, in a process group of its own.

    The worker holds the run's lock from its first moment to its end, because it inherits the locked
    file. By the lock a restarted service finds the worker.
    """

    grace_seconds: float = 10.0
    """From SIGTERM to SIGKILL."""
    poll_seconds: float = 0.2
    """Between two looks at a worker that another process started."""

    async def execute(self, folder: RunFolder, job: Job) -> WorkerResult:
        with FileLock(folder.lock) as lock:
            if not lock.take():
                return await self._follow(folder, lock)
            result = folder.result()
            if result and result.ending in (WorkerEnding.DONE, WorkerEnding.BAD_INPUT):
                return result  # It ended while the service was down.
            worker = await _start(folder, job, lock)
        return await self._attend(folder, worker)

    async def _attend(self, folder: RunFolder, worker: asyncio.subprocess.Process) -> WorkerResult:
        try:
            code = await worker.wait()
        except asyncio.CancelledError:
            _signal_group(worker.pid, signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(worker.wait(), self.grace_seconds)
            _signal_group(worker.pid, signal.SIGKILL)
            await worker.wait()
            raise
        # Processes that the worker left behind would hold memory, or the GPU.
        _signal_group(worker.pid, signal.SIGKILL)
        return folder.result() or _from_code(folder, code)

    async def _follow(self, folder: RunFolder, lock: FileLock) -> WorkerResult:
        """Waits for a worker that another service process started."""
        try:
            while not lock.take():  # noqa: ASYNC110 - another process holds it
                await asyncio.sleep(self.poll_seconds)
        except asyncio.CancelledError:
            await self._stop_stranger(folder, lock)
            raise
        return folder.result() or WorkerResult(
            ending=WorkerEnding.RETRY, reason="the worker was killed while no service watched it"
        )

    async def _stop_stranger(self, folder: RunFolder, lock: FileLock) -> None:
        number, left = signal.SIGTERM, self.grace_seconds
        while not lock.take():
            heartbeat = folder.heartbeat()
            if heartbeat:
                _signal_group(heartbeat.pid, number)
            await asyncio.sleep(self.poll_seconds)
            left -= self.poll_seconds
            if left <= 0:
                number = signal.SIGKILL


async def _start(folder: RunFolder, job: Job, lock: FileLock) -> asyncio.subprocess.Process:
    folder.begin_attempt(job)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(job.threads),
        "MKL_NUM_THREADS": str(job.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        # The base is a folder by now, so no library needs to ask the hub, or to wait for it.
        "HF_HUB_OFFLINE": "1",
        **_KEEP_MEMORY,
        **tracing.variables(),
    }
    with folder.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tuneproof_trainer.worker",
            str(folder.path),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=folder.path,
            pass_fds=(lock.fileno(),),
            start_new_session=True,
        )


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _from_code(folder: RunFolder, code: int) -> WorkerResult:
    """The result by exit code, of a worker that wrote none."""
    words = folder.last_words()
    said = f"; its log ends with: {words}" if words else ""
    if code < 0:
        reason = f"the worker was ended by {signal.Signals(-code).name}{said}"
        return WorkerResult(ending=WorkerEnding.RETRY, reason=reason)
    ending = _CODES.get(code, WorkerEnding.BAD_INPUT)
    if ending is WorkerEnding.DONE:
        ending = WorkerEnding.RETRY
    return WorkerResult(ending=ending, reason=f"the worker ended with exit code {code}{said}")
