"""The documents of a run: what service and worker know of it, each an object in the artifact store.

RunStatus     where a run stands; the newest of its numbered states
Job           what an attempt's worker needs beside the spec
Heartbeat     a worker's sign of life, renewed while it lives
WorkerResult  how a worker ended, with its exit code (`EXIT_CODES`)
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel

from tuneproof_trainer.progress import Step


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
    """Where a run stands, and since when."""

    id: str
    state: RunState
    reason: str = ""
    """Why it failed, or what it waits for."""
    attempt: int = 0
    """Counts the workers that were started. The number is the fencing token: a worker whose number
    is not the newest any more stops before it commits."""
    early_ends: int = 0
    """Attempts in a row whose worker ended early, without a later checkpoint than before."""
    create_time: datetime
    start_time: datetime | None = None
    """Of the first attempt."""
    end_time: datetime | None = None
    replica: str = ""
    """The trainer that started the newest attempt."""
    replica_process: str = ""
    """Its process, see `servicekit.processes`."""
    executor: str = ""
    """Where the newest attempt runs: `local` or `kubernetes`."""
    checkpoint_step: int = 0
    """Of the newest checkpoint when the last attempt ended early; 0 when there was none."""
    last_step: Step | None = None
    """The last step of a run that has ended."""
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
    """How a worker ended, and what it made."""

    ending: WorkerEnding
    reason: str = ""
    adapter_ref: str = ""
    provenance: dict[str, str] = {}


class Job(BaseModel, frozen=True, extra="forbid"):
    """Where an attempt's worker has things, and how often it saves."""

    run_id: str
    base_folder: str
    base_revision: str = ""
    """The base's commit at the hub; empty when it came from a folder."""
    artifacts: str
    """URL of the artifact store."""
    device: str
    """auto, cpu or cuda."""
    threads: int
    devices: int = 1
    """Devices, or processes on a CPU, that share the effective batch on each node."""
    nodes: int = 1
    checkpoint_steps: int = 0
    """Optimiser steps between two checkpoints; 0: by time alone."""
    checkpoint_minutes: float = 10.0
    """Minutes between two checkpoints; 0: by steps alone."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay."""
    beat_seconds: float = 2.0
    """Between two heartbeats."""
    tensorboard: str = ""
    """Folder that gets a subfolder of TensorBoard's events for each run; empty: none."""
    mlflow: str = ""
    """Tracking URI of MLflow, which gets each run's losses; empty: none."""

    @property
    def processes(self) -> int:
        """Training processes of one attempt."""
        return self.devices * self.nodes


class Heartbeat(BaseModel, frozen=True, extra="forbid"):
    """A worker's sign of life."""

    process: str
    """See `servicekit.processes`."""
    sequence: int
    """Grows with each renewal: readers need no common clock."""
    phase: str
    time: datetime
    step: Step | None = None
    """The last one."""
    checkpoint_step: int = 0
    """Of the newest whole checkpoint."""
    warning: str = ""
    """What goes wrong without ending the run, as a checkpoint that could not be saved."""
