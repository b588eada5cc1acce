"""A run's folder: all that is known of a run, readable by any process at any time.

<runs>/<id>/
    spec.json       what was asked, defaults filled in; never changes
    state.json      its status; only the service writes it
    job.json        what the worker needs beside the spec; written before each attempt
    lock            held by the worker while it lives
    heartbeat.json  the worker's process id, phase and time
    metrics.jsonl   a line for each optimiser step of this attempt
    log.txt         all output of the worker and its libraries
    trained/        the adapter until it is committed
    result.json     how the worker ended; missing if it was killed
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from tuneproof.servicekit.errors import Corrupted
from tuneproof.servicekit.files import write_atomically
from tuneproof_trainer.spec import RunSpec

M = TypeVar("M", bound=BaseModel)


class RunState(StrEnum):
    """The states of a run."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


class RunStatus(BaseModel, frozen=True, extra="forbid"):
    """state.json: where a run stands, and since when."""

    id: str
    state: RunState
    reason: str = ""
    """Why it failed, or why it waits again."""
    early_ends: int = 0
    """Attempts whose worker was killed, or ended for a reason that may pass."""
    create_time: datetime
    start_time: datetime | None = None
    """Of the first attempt."""
    end_time: datetime | None = None
    adapter_ref: str = ""
    provenance: dict[str, str] = {}


class WorkerEnding(StrEnum):
    """How a worker ended, and with which exit code (`EXIT_CODES`)."""

    DONE = "done"
    BAD_INPUT = "bad_input"
    """Another attempt would end the same way."""
    RETRY = "retry"
    """Another attempt may help."""
    STOPPED = "stopped"
    """It was told to stop."""


EXIT_CODES = {
    WorkerEnding.DONE: 0,
    WorkerEnding.BAD_INPUT: 2,
    WorkerEnding.RETRY: 75,
    WorkerEnding.STOPPED: 130,
}


class WorkerResult(BaseModel, frozen=True, extra="forbid"):
    """result.json: how a worker ended, and what it made."""

    ending: WorkerEnding
    reason: str = ""
    adapter_ref: str = ""
    provenance: dict[str, str] = {}


class Job(BaseModel, frozen=True, extra="forbid"):
    """job.json: where this trainer has things."""

    run_id: str
    base_folder: str
    base_revision: str = ""
    """The base's commit at the hub; empty when it came from a folder."""
    artifacts: str
    """URL of the artifact store."""
    device: str
    """auto, cpu or cuda."""
    threads: int
    tensorboard: str = ""
    """Folder that gets a subfolder of TensorBoard's events for each run; empty: none."""
    mlflow: str = ""
    """Tracking URI of MLflow, which gets each run's losses; empty: none."""


class Heartbeat(BaseModel, frozen=True, extra="forbid"):
    """heartbeat.json."""

    pid: int
    phase: str
    time: datetime


class RunFolder:
    """Reads and writes the files of one run; each write is atomic."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.log = path / "log.txt"
        self.lock = path / "lock"
        self.trained = path / "trained"

    @classmethod
    def create(cls, runs: Path, spec: RunSpec, status: RunStatus) -> RunFolder:
        """Makes the folder of a new run, all at once.

        Raises:
            OSError: when there is one already, or the disk is full.
        """
        runs.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=runs, prefix=".new."))
        try:
            write_atomically(fresh / "spec.json", _text(spec))
            write_atomically(fresh / "state.json", _text(status))
            fresh.chmod(0o755)
            fresh.rename(runs / status.id)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        return cls(runs / status.id)

    def spec(self) -> RunSpec:
        """Raises Corrupted when there is none."""
        return self._required("spec.json", RunSpec)

    def status(self) -> RunStatus:
        """Raises Corrupted when there is none."""
        return self._required("state.json", RunStatus)

    def job(self) -> Job:
        """Raises Corrupted when there is none."""
        return self._required("job.json", Job)

    def result(self) -> WorkerResult | None:
        """How the worker ended in this attempt; None while it has not."""
        return self._optional("result.json", WorkerResult)

    def heartbeat(self) -> Heartbeat | None:
        """The worker's last sign of life."""
        return self._optional("heartbeat.json", Heartbeat)

    def write(self, document: RunStatus | WorkerResult | Job | Heartbeat) -> None:
        """Makes or replaces a document."""
        write_atomically(self.path / _FILES[type(document)], _text(document))

    def begin_attempt(self, job: Job) -> None:
        """Removes the reports of the last attempt, but not an adapter that it finished."""
        for name in ("result.json", "heartbeat.json", "metrics.jsonl"):
            (self.path / name).unlink(missing_ok=True)
        self.write(job)

    def last_words(self) -> str:
        """The last line of the log, for people."""
        if not self.log.is_file():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:400] if lines else ""

    def _required(self, name: str, kind: type[M]) -> M:
        found = self._optional(name, kind)
        if found is None:
            raise Corrupted(f"run {self.path.name} lacks {name}; remove its folder")
        return found

    def _optional(self, name: str, kind: type[M]) -> M | None:
        try:
            return kind.model_validate_json((self.path / name).read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            first = error.errors()[0]
            raise Corrupted(
                f"{name} of run {self.path.name} cannot be read: {first['msg']}"
            ) from None


_FILES: dict[type[BaseModel], str] = {
    RunStatus: "state.json",
    WorkerResult: "result.json",
    Job: "job.json",
    Heartbeat: "heartbeat.json",
}


def _text(document: BaseModel) -> bytes:
    return document.model_dump_json(indent=2).encode()
