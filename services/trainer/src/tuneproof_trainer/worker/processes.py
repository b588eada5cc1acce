"""The processes of one training that several devices share: which one this is, and the others.

An executor starts one worker on each node. Where a node has several devices, its worker starts a
process for each of the others. All run this program over the same data, and train together as
accelerate finds them by torchrun's variables: RANK, WORLD_SIZE and so on. Only the first process
of the first node writes to the store; the others read from it, train, and end.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tuneproof.servicekit.errors import InvalidInput, TuneproofError
from tuneproof_trainer.record import EXIT_CODES, Job, WorkerEnding, WorkerResult

_NODE = "JOB_COMPLETION_INDEX"
"""Kubernetes sets it in the pods of an indexed Job."""
_PORT = "29500"
_POLL_SECONDS = 0.1
_CAUSE_SECONDS = 5.0
_HARMLESS = (None, EXIT_CODES[WorkerEnding.DONE], EXIT_CODES[WorkerEnding.STOPPED])
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Place:
    """Where a process stands in a training."""

    node: int
    local: int
    """Number of its device on the node."""

    @classmethod
    def here(cls, local: int) -> Place:
        """That of this process."""
        return cls(int(os.environ.get(_NODE) or 0), local)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes to the store."""
        return not (self.node or self.local)


def variables(job: Job, place: Place) -> dict[str, str]:
    """What accelerate reads; empty for a training in one process.

    Raises:
        InvalidInput: several nodes, and nothing says where the first one is.
    """
    if job.processes == 1:
        return {}
    address, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", _PORT)
    if job.nodes == 1:
        address = "127.0.0.1"
        if not place.local:
            port = str(_free_port())
    elif not address:
        raise InvalidInput(
            f"the training runs on {job.nodes} nodes, and MASTER_ADDR is not set: it names the"
            " host of the first one",
            field="nodes",
        )
    return {
        "RANK": str(place.node * job.devices + place.local),
        "WORLD_SIZE": str(job.processes),
        "LOCAL_RANK": str(place.local),
        "LOCAL_WORLD_SIZE": str(job.devices),
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def visible_devices(device: str, count: int) -> dict[str, str]:
    """The variable that shows the processes of a node their GPUs, or none."""
    name = "CUDA_VISIBLE_DEVICES"
    if device == "cpu":
        # bitsandbytes 0.50 quantises on the first GPU that it sees, whatever was asked.
        return {name: ""}
    # TRL 1.16 refuses to train in one process that sees several GPUs.
    seen = os.environ.get(name, ",".join(map(str, range(count))))
    return {name: ",".join(seen.split(",")[:count])}


class Others:
    """The other processes of this node, while the block lasts.

    Args:
        folder: of this worker.
        failed: told how the training ends when one of them ended badly; it does not return, for
            this process may wait for that one in vain.
    """

    def __init__(
        self,
        job: Job,
        attempt: int,
        place: Place,
        folder: Path,
        failed: Callable[[WorkerResult], object],
    ) -> None:
        self._job = job
        self._attempt = attempt
        self._place = place
        self._folder = folder
        self._failed = failed
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._thread = threading.Thread(target=self._watch, name="processes", daemon=True)
        self._found = self._ends = False

    def __enter__(self) -> Others:
        for local in range(1, self._job.devices):
            place = Place(self._place.node, local)
            self._processes[local] = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tuneproof_trainer.worker"),
                    *(self._job.artifacts, self._job.run_id, str(self._attempt)),
                    *("--folder", str(self._folder), "--local-rank", str(local)),
                ],
                env=os.environ | variables(self._job, place),
                stdin=subprocess.DEVNULL,
            )
        if self._processes:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, TuneproofError):
            # Perhaps it is only the echo of another process's end, which says more.
            end = time.monotonic() + _CAUSE_SECONDS
            while self._processes and not self._found and time.monotonic() < end:
                time.sleep(_POLL_SECONDS)
        if self._found:
            self._thread.join()
        self._ends = True
        self._kill()

    def _watch(self) -> None:
        while not self._ends:
            codes = {local: process.poll() for local, process in self._processes.items()}
            bad = {local: code for local, code in codes.items() if code not in _HARMLESS}
            if bad:
                self._found = True
                # Those that ended because another did say `RETRY`.
                retry = EXIT_CODES[WorkerEnding.RETRY]
                local = min(bad, key=lambda local: bad[local] == retry)
                self._kill()
                self._failed(self._result(local, bad[local] or 0))
                return
            time.sleep(_POLL_SECONDS)

    def _result(self, local: int, code: int) -> WorkerResult:
        told = result_file(self._folder, local)
        if told.is_file():
            return WorkerResult.model_validate_json(told.read_bytes())
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return WorkerResult(
            ending=WorkerEnding.RETRY,
            reason=f"process {local + 1} of {self._job.devices} was ended by {how}",
        )

    def _kill(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()


def result_file(folder: Path, local: int) -> Path:
    """Where another process says how it ended."""
    return folder / f"ended-{local}.json"


def end_with_parent() -> None:
    """This process is killed when the one that started it ends, however that ends."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
