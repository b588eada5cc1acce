"""One attempt's work: reads, trains, commits; and what the other processes of its training do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from tuneproof.adapters.base import identify_base
from tuneproof.adapters.registry import Registry
from tuneproof.adapters.storage import Storage
from tuneproof.servicekit.errors import Corrupted, Unavailable
from tuneproof.servicekit.files import write_atomically
from tuneproof.servicekit.imports import large_imports
from tuneproof_trainer.examples import Examples, load_for_training
from tuneproof_trainer.record import Job, WorkerEnding, WorkerResult
from tuneproof_trainer.runs.store import TRAINED, RunStore
from tuneproof_trainer.spec import RunSpec
from tuneproof_trainer.worker.checkpoints import Checkpoints
from tuneproof_trainer.worker.processes import Others, Place, variables, visible_devices
from tuneproof_trainer.worker.stopping import Stop, StoppedError
from tuneproof_trainer.worker.telling import Reporter, patiently

_FACTS = "summary.json"
"""The provenance of an adapter that is not committed yet, beside its files."""
_Failed = Callable[[WorkerResult], object]


class Work:
    """What one process does for an attempt.

    Args:
        folder: for local files.
        failed: see `Others`.
    """

    def __init__(
        self,
        storage: Storage,
        run_id: str,
        attempt: int,
        *,
        place: Place,
        stop: Stop,
        folder: Path,
        failed: _Failed,
    ) -> None:
        self._storage = storage
        self._store = RunStore(storage)
        self._run_id = run_id
        self._attempt = attempt
        self._place = place
        self._stop = stop
        self._folder = folder
        self._failed = failed

    def do(self, tell: Reporter) -> WorkerResult:
        """Makes the adapter: the first process."""
        tell.phase("reading")
        spec, job = self._read()
        tell.beat_every(job.beat_seconds)
        identity = identify_base(Path(job.base_folder))
        trained = self._folder / TRAINED
        bundles = self._store.bundles(self._run_id)
        if patiently(lambda: bundles.exists(TRAINED)):
            patiently(lambda: bundles.load(TRAINED, trained))
        else:
            self._train(spec, job, trained, tell)
            tell.phase("saving")
            patiently(lambda: bundles.save(TRAINED, trained))
        tell.phase("committing")
        facts = json.loads((trained / _FACTS).read_bytes())["facts"]
        registry = Registry(job.artifacts)
        patiently(tell.check)
        ref = patiently(
            lambda: registry.commit(
                trained, name=spec.adapter_name, base=identity, provenance=facts
            )
        )
        print(f"committed {ref}")
        self._tidy()
        return WorkerResult(ending=WorkerEnding.DONE, adapter_ref=str(ref), provenance=facts)

    def help(self) -> WorkerResult:
        """Trains with the first process: every other one."""
        spec, job = self._read()
        bundles = self._store.bundles(self._run_id)
        if not patiently(lambda: bundles.exists(TRAINED)):
            # Only the first process says when a checkpoint is due.
            mute = job.model_copy(update={"checkpoint_steps": 0, "checkpoint_minutes": 0})
            checkpoints = Checkpoints(self._store.checkpoints(self._run_id), mute, stop=self._stop)
            own = self._folder / f"node-{self._place.node}-{self._place.local}"
            self._make(spec, job, own, checkpoints)
        return WorkerResult(ending=WorkerEnding.DONE)

    def _read(self) -> tuple[RunSpec, Job]:
        spec = patiently(lambda: self._store.spec(self._run_id))
        job = patiently(lambda: self._store.read(Job, self._run_id, self._attempt))
        if job is None:
            raise Corrupted(f"run {self._run_id} lacks the job of attempt {self._attempt}")
        if not self._place.local:  # It starts the others, with these variables.
            os.environ.update(visible_devices(job.device, job.devices))
            os.environ.update(variables(job, self._place))
        return spec, job

    def _train(self, spec: RunSpec, job: Job, target: Path, tell: Reporter) -> None:
        """Makes the folder of an adapter that is not committed yet, whole."""
        checkpoints = Checkpoints(
            self._store.checkpoints(self._run_id),
            job,
            stop=self._stop,
            before=tell.flush,
            warn=tell.warn,
            saved=tell.saved,
        )
        try:
            facts, card = self._make(spec, job, target, checkpoints, tell)
        except StoppedError:
            if self._stop.requested:
                checkpoints.flush()
            raise
        finally:
            checkpoints.close()
        write_atomically(target / "README.md", card.encode())
        write_atomically(target / _FACTS, json.dumps({"facts": facts}, indent=2).encode())

    def _make(
        self,
        spec: RunSpec,
        job: Job,
        target: Path,
        checkpoints: Checkpoints,
        tell: Reporter | None = None,
    ) -> tuple[dict[str, str], str]:
        examples: Examples = patiently(lambda: load_for_training(self._storage, spec))
        with large_imports():
            from tuneproof_trainer.worker.pipeline import make_adapter  # noqa: PLC0415 - seconds

        def nothing(_: object) -> None:
            pass

        with Others(job, self._attempt, self._place, self._folder, self._failed):
            return make_adapter(
                spec,
                job,
                examples,
                target,
                on_phase=tell.phase if tell else nothing,
                on_step=tell.step if tell else nothing,
                checkpoints=checkpoints,
            )

    def _tidy(self) -> None:
        """Deletes what only another attempt would need."""
        try:
            checkpoints = self._store.checkpoints(self._run_id)
            for name in checkpoints.names():
                checkpoints.delete(name)
            self._store.bundles(self._run_id).delete(TRAINED)
        except (Unavailable, OSError) as error:
            print(f"not deleted: {error}", flush=True)
