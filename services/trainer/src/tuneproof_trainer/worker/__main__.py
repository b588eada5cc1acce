"""The worker: `python -m tuneproof_trainer.worker STORE RUN ATTEMPT` makes one adapter and ends.

Exit codes: 0 done, 2 bad input, 75 worth another attempt, 130 told to stop; the attempt's result in
the store says it too. Torch and what needs it are imported late, so that wrong data is reported at
once.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

from tuneproof.adapters.base import identify_base
from tuneproof.adapters.registry import Registry
from tuneproof.adapters.storage import Storage, open_storage
from tuneproof.servicekit import tracing
from tuneproof.servicekit.errors import Corrupted, Overloaded, TuneproofError, Unavailable
from tuneproof.servicekit.files import write_atomically
from tuneproof_trainer.examples import load_for_training
from tuneproof_trainer.record import EXIT_CODES, Job, WorkerEnding, WorkerResult
from tuneproof_trainer.runs.store import TRAINED, RunStore
from tuneproof_trainer.spec import RunSpec
from tuneproof_trainer.worker.checkpoints import Checkpoints
from tuneproof_trainer.worker.output import LOG, also_write
from tuneproof_trainer.worker.stopping import Stop, StoppedError
from tuneproof_trainer.worker.telling import Reporter

_FACTS = "summary.json"
"""The provenance of an adapter that is not committed yet, beside its files."""


def main() -> int:
    """The worker's program."""
    with tracing.tracing("tuneproof-trainer-worker"):
        return _main(_arguments().parse_args())


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tuneproof_trainer.worker")
    parser.add_argument("store", help="URL of the artifact store")
    parser.add_argument("run", help="the run's id")
    parser.add_argument("attempt", type=int, help="the attempt's number")
    parser.add_argument("--folder", type=Path, help="for local files; log.txt in it is stored")
    return parser


def _main(asked: argparse.Namespace) -> int:
    stop, parent = Stop(), os.getppid()
    stop.install()
    storage = open_storage(asked.store)
    store = RunStore(storage)
    folder = asked.folder or Path(tempfile.mkdtemp(prefix=f"tuneproof-{asked.run}."))
    if asked.folder is None:
        also_write(folder / LOG)
    reporter = Reporter(store, asked.run, asked.attempt, folder / LOG)
    try:
        with tracing.span("worker", within=tracing.from_variables()):
            reporter.start()
            work = _Work(
                store=store,
                storage=storage,
                reporter=reporter,
                stop=stop,
                folder=folder,
                attempt=asked.attempt,
            )
            result = work.do(asked.run)
    except StoppedError:
        result = WorkerResult(ending=WorkerEnding.STOPPED, reason="the worker was told to stop")
    except Exception as error:  # noqa: BLE001 - the result tells every failure
        traceback.print_exc()
        result = _explain(error)
    stop.ignore()  # The result is written to its end.
    try:
        reporter.finish(result)
    except Unavailable as error:
        print(error.message, file=sys.stderr)
    if asked.folder is None or os.getppid() != parent:  # Nobody else is left to delete it.
        shutil.rmtree(folder, ignore_errors=True)
    return EXIT_CODES[result.ending]


def _explain(error: Exception) -> WorkerResult:
    may_pass = isinstance(error, Unavailable | Overloaded | OSError)
    if isinstance(error, TuneproofError):
        reason = error.message
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        reason = (
            "memory ran out; lower micro_batch_size or max_length, or set gradient_checkpointing"
        )
    else:
        reason = f"{type(error).__name__}: {error}; see the run's log in the artifact store"
    return WorkerResult(
        ending=WorkerEnding.RETRY if may_pass else WorkerEnding.BAD_INPUT, reason=reason
    )


class _Work:
    """One attempt's work: reads, trains, commits."""

    def __init__(
        self,
        *,
        store: RunStore,
        storage: Storage,
        reporter: Reporter,
        stop: Stop,
        folder: Path,
        attempt: int,
    ) -> None:
        self._store = store
        self._storage = storage
        self._reporter = reporter
        self._stop = stop
        self._folder = folder
        self._attempt = attempt

    def do(self, run_id: str) -> WorkerResult:
        tell, store = self._reporter, self._store
        tell.phase("reading")
        spec = tell.patiently(lambda: store.spec(run_id))
        job = tell.patiently(lambda: store.read(Job, run_id, self._attempt))
        if job is None:
            raise Corrupted(f"run {run_id} lacks the job of attempt {self._attempt}")
        tell.beat_every(job.beat_seconds)
        os.environ.update(_visible_devices(job.device))
        identity = identify_base(Path(job.base_folder))
        trained = self._folder / TRAINED
        bundles = store.bundles(run_id)
        if tell.patiently(lambda: bundles.exists(TRAINED)):
            tell.patiently(lambda: bundles.load(TRAINED, trained))
        else:
            self._train(spec, job, trained)
            tell.phase("saving")
            tell.patiently(lambda: bundles.save(TRAINED, trained))
        tell.phase("committing")
        facts = json.loads((trained / _FACTS).read_bytes())["facts"]
        registry = Registry(job.artifacts)
        tell.patiently(tell.check)
        ref = tell.patiently(
            lambda: registry.commit(
                trained, name=spec.adapter_name, base=identity, provenance=facts
            )
        )
        print(f"committed {ref}")
        self._tidy(run_id)
        return WorkerResult(ending=WorkerEnding.DONE, adapter_ref=str(ref), provenance=facts)

    def _train(self, spec: RunSpec, job: Job, target: Path) -> None:
        """Makes the folder of an adapter that is not committed yet, whole."""
        tell = self._reporter
        examples = tell.patiently(lambda: load_for_training(self._storage, spec))
        from tuneproof_trainer.worker.pipeline import make_adapter  # noqa: PLC0415 - seconds

        checkpoints = Checkpoints(
            self._store.checkpoints(job.run_id),
            job,
            stop=self._stop,
            before=tell.flush,
            warn=tell.warn,
            saved=tell.saved,
        )
        try:
            facts, card = make_adapter(
                spec,
                job,
                examples,
                target,
                on_phase=tell.phase,
                on_step=tell.step,
                checkpoints=checkpoints,
            )
        except StoppedError:
            if self._stop.requested:
                checkpoints.flush()
            raise
        finally:
            checkpoints.close()
        write_atomically(target / "README.md", card.encode())
        write_atomically(target / _FACTS, json.dumps({"facts": facts}, indent=2).encode())

    def _tidy(self, run_id: str) -> None:
        """Deletes what only another attempt would need."""
        try:
            checkpoints = self._store.checkpoints(run_id)
            for name in checkpoints.names():
                checkpoints.delete(name)
            self._store.bundles(run_id).delete(TRAINED)
        except (Unavailable, OSError) as error:
            print(f"not deleted: {error}", flush=True)


def _visible_devices(device: str) -> dict[str, str]:
    """The variable that shows this process one GPU, or none."""
    name = "CUDA_VISIBLE_DEVICES"
    if device == "cpu":
        # bitsandbytes 0.50 quantises on the first GPU that it sees, whatever was asked.
        return {name: ""}
    # TRL 1.16 refuses to train in one process that sees several GPUs.
    return {name: os.environ.get(name, "0").split(",")[0]}


if __name__ == "__main__":
    raise SystemExit(main())
