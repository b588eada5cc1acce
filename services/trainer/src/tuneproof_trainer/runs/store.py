"""A run in the artifact store: all that is known of it, readable by any process at any time.

<artifacts>/runs/<id>/
    spec.json              what was asked, defaults filled in; created once, never changed
    states/<n>.json        its status: each change is an object with the next number
    jobs/<attempt>.json    what that attempt's worker needs beside the spec
    heartbeats/<attempt>.json   renewed while that worker lives
    results/<attempt>.json      how that worker ended; missing if it was killed
    logs/<attempt>.txt     all output of that worker and its libraries
    metrics/<k>.jsonl      the losses, see `metrics`
    checkpoints/<step>/    what a later attempt goes on from, see `bundles`
    trained/               the adapter until it is committed

States are created only if the number is free. So of two trainers that change one run at once, one
fails, reads again, and decides again; no lock is needed, on a folder or in S3.
"""

from __future__ import annotations

import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from tuneproof.adapters import BoundedStore, Storage
from tuneproof.servicekit.errors import Corrupted, NotFound
from tuneproof_trainer.record import Heartbeat, Job, RunStatus, WorkerResult
from tuneproof_trainer.runs.bundles import Bundles
from tuneproof_trainer.runs.metrics import Metrics
from tuneproof_trainer.spec import RunSpec

M = TypeVar("M", bound=BaseModel)

RUN_ID = re.compile(r"[a-z][a-z0-9-]{0,62}")
TRAINED = "trained"
"""The bundle of an adapter that is not committed yet."""

_STATE = re.compile(r"([0-9]{8,18})\.json")
_TRIED = "runs/.tried"
"""A run's id begins with a letter."""
_TRIED_BYTES = 8192
"""More than one block of a disk."""
_LAST_WORDS = 400
_FOLDERS: dict[type[BaseModel], str] = {
    Job: "jobs",
    Heartbeat: "heartbeats",
    WorkerResult: "results",
}


class RunStore:
    """Reads and writes the objects of all runs. Its calls block; each write is atomic.

    Every call raises Unavailable when the store does not answer in time.

    Args:
        seconds: how long a call on a small object may take.
    """

    def __init__(self, storage: Storage, *, seconds: float = 20.0) -> None:
        self._objects = BoundedStore(storage, seconds)
        self._storage = storage

    def ids(self) -> list[str]:
        """Every run's id, sorted."""
        return [name for name in self._objects.names("runs") if RUN_ID.fullmatch(name)]

    def create(self, run_id: str, spec: RunSpec, status: RunStatus) -> bool:
        """Makes a run; whether this call made it.

        The spec comes first. Of two callers at once one creates it; a caller that was interrupted
        between spec and state repeats the call with the same spec.
        """
        is_new = self._objects.create(f"runs/{run_id}/spec.json", _text(spec))
        if not is_new and self.spec(run_id) != spec:
            return False
        return self.advance(status, 0)

    def spec(self, run_id: str) -> RunSpec:
        """Raises NotFound, or Corrupted when it cannot be read."""
        return self._read(f"runs/{run_id}/spec.json", RunSpec)

    def version(self, run_id: str) -> int:
        """The number of the newest state; 0 when the run does not exist."""
        found = map(_STATE.fullmatch, self._objects.names(f"runs/{run_id}/states"))
        return max((int(match[1]) for match in found if match), default=0)

    def status(self, run_id: str, version: int) -> RunStatus:
        """Raises NotFound, or Corrupted when it cannot be read."""
        return self._read(_state(run_id, version), RunStatus)

    def newest(self, run_id: str) -> RunStatus:
        """The status now. Raises NotFound when the run does not exist."""
        return self.status(run_id, self.version(run_id))

    def advance(self, status: RunStatus, after: int) -> bool:
        """Writes the state after a version; False when another trainer was faster."""
        return self._objects.create(_state(status.id, after + 1), _text(status))

    def read(self, kind: type[M], run_id: str, attempt: int) -> M | None:
        """An attempt's job, heartbeat or result; None when it was not written.

        Raises:
            Corrupted: when it cannot be read.
        """
        try:
            return self._read(_document(kind, run_id, attempt), kind)
        except NotFound:
            return None

    def write(self, document: BaseModel, run_id: str, attempt: int) -> None:
        """Makes or replaces an attempt's job, heartbeat or result."""
        self._objects.write(_document(type(document), run_id, attempt), _text(document))

    def write_log(self, text: bytes, run_id: str, attempt: int) -> None:
        """Makes or replaces an attempt's log."""
        self._objects.write(f"runs/{run_id}/logs/{attempt:04d}.txt", text)

    def metrics(self, run_id: str) -> Metrics:
        """The run's losses."""
        return Metrics(self._objects, f"runs/{run_id}")

    def checkpoints(self, run_id: str) -> Bundles:
        """The run's checkpoints, by eight digits of the step."""
        return Bundles(self._storage, f"runs/{run_id}/checkpoints")

    def bundles(self, run_id: str) -> Bundles:
        """The run's other bundles: `TRAINED`."""
        return Bundles(self._storage, f"runs/{run_id}")

    def checkpoint_step(self, run_id: str) -> int:
        """The step of the newest whole checkpoint; 0 when there is none."""
        return max(map(int, self.checkpoints(run_id).names()), default=0)

    def try_writing(self) -> None:
        """Makes sure that the store takes writes: one on a full disk still reads."""
        self._objects.write(_TRIED, bytes(_TRIED_BYTES))

    def _read(self, path: str, kind: type[M]) -> M:
        try:
            return kind.model_validate_json(self._objects.read(path))
        except ValidationError as error:
            first = error.errors()[0]
            raise Corrupted(
                f"{path} in the artifact store cannot be read: {first['msg']}; remove the run's"
                " folder, or restore the object"
            ) from None


def last_words(log: bytes) -> str:
    """The last line of a log, for people."""
    lines = log[-4096:].decode(errors="replace").strip().splitlines()
    return lines[-1][:_LAST_WORDS] if lines else ""


def _state(run_id: str, version: int) -> str:
    return f"runs/{run_id}/states/{version:08d}.json"


def _document(kind: type[BaseModel], run_id: str, attempt: int) -> str:
    return f"runs/{run_id}/{_FOLDERS[kind]}/{attempt:04d}.json"


def _text(document: BaseModel) -> bytes:
    return document.model_dump_json(indent=2).encode()
