"""The worker: `python -m tuneproof_trainer.worker RUN_DIR` makes one adapter and ends.

Exit codes: 0 done, 2 bad input, 75 worth another attempt, 130 told to stop; result.json says it
too. Torch and what needs it are imported late, so that wrong data is reported at once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from opentelemetry.trace import INVALID_SPAN, Span

from tuneproof.adapters.base import identify_base
from tuneproof.adapters.registry import Registry
from tuneproof.adapters.storage import open_storage
from tuneproof.servicekit import tracing
from tuneproof.servicekit.errors import Overloaded, TuneproofError, Unavailable
from tuneproof.servicekit.files import write_atomically
from tuneproof_trainer.examples import Examples, load_for_training
from tuneproof_trainer.progress import Step, StepLog
from tuneproof_trainer.record import (
    EXIT_CODES,
    Heartbeat,
    Job,
    RunFolder,
    WorkerEnding,
    WorkerResult,
)
from tuneproof_trainer.spec import RunSpec

_BEAT_SECONDS = 1.0
_FACTS = "summary.json"
"""The provenance of an adapter that is not committed yet, beside its files."""


class _StoppedError(BaseException):
    """SIGTERM came. A BaseException, so that no `except Exception` catches it."""


def main() -> int:
    """The worker's program."""
    with tracing.tracing("tuneproof-trainer-worker"):
        return _main()


def _main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m tuneproof_trainer.worker RUN_DIR", file=sys.stderr)
        return EXIT_CODES[WorkerEnding.BAD_INPUT]
    signal.signal(signal.SIGTERM, _stop)
    folder = RunFolder(Path(sys.argv[1]))
    try:
        with tracing.span("worker", within=tracing.from_variables()), _Beat(folder) as beat:
            result = _run(folder, beat)
    except _StoppedError:
        result = WorkerResult(ending=WorkerEnding.STOPPED, reason="the worker was told to stop")
    except Exception as error:  # noqa: BLE001 - result.json tells every failure
        traceback.print_exc()
        result = _explain(error)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # result.json is written to its end.
    folder.write(result)
    return EXIT_CODES[result.ending]


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise _StoppedError


def _explain(error: Exception) -> WorkerResult:
    may_pass = isinstance(error, Unavailable | Overloaded | OSError)
    if isinstance(error, TuneproofError):
        reason = error.message
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        reason = (
            "memory ran out; lower micro_batch_size or max_length, or set gradient_checkpointing"
        )
    else:
        reason = f"{type(error).__name__}: {error}; see log.txt in the run's folder"
    return WorkerResult(
        ending=WorkerEnding.RETRY if may_pass else WorkerEnding.BAD_INPUT, reason=reason
    )


def _run(folder: RunFolder, beat: _Beat) -> WorkerResult:
    beat("reading")
    spec, job = folder.spec(), folder.job()
    os.environ.update(_visible_devices(job.device))
    identity = identify_base(Path(job.base_folder))
    if not folder.trained.is_dir():
        examples = load_for_training(open_storage(job.artifacts), spec)
        _train(folder, spec, job, examples, beat)
    beat("committing")
    facts = json.loads((folder.trained / _FACTS).read_bytes())["facts"]
    ref = Registry(job.artifacts).commit(
        folder.trained, name=spec.adapter_name, base=identity, provenance=facts
    )
    print(f"committed {ref}")
    shutil.rmtree(folder.trained)
    return WorkerResult(ending=WorkerEnding.DONE, adapter_ref=str(ref), provenance=facts)


def _visible_devices(device: str) -> dict[str, str]:
    """The variable that shows this process one GPU, or none."""
    name = "CUDA_VISIBLE_DEVICES"
    if device == "cpu":
        # bitsandbytes 0.50 quantises on the first GPU that it sees, whatever was asked.
        return {name: ""}
    # TRL 1.16 refuses to train in one process that sees several GPUs.
    return {name: os.environ.get(name, "0").split(",")[0]}


def _train(folder: RunFolder, spec: RunSpec, job: Job, examples: Examples, beat: _Beat) -> None:
    """Makes `trained/`, in one step."""
    from tuneproof_trainer.worker.pipeline import make_adapter  # noqa: PLC0415 - seconds of imports

    unfinished = folder.path / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    steps = StepLog(folder.metrics)

    def on_step(step: Step) -> None:
        steps.append(step)
        beat("training")

    try:
        facts, card = make_adapter(spec, job, examples, unfinished, on_phase=beat, on_step=on_step)
    finally:
        steps.close()
    write_atomically(unfinished / "README.md", card.encode())
    write_atomically(unfinished / _FACTS, json.dumps({"facts": facts}, indent=2).encode())
    unfinished.rename(folder.trained)


class _Beat:
    """Writes the heartbeat: at each new phase, and at most once a second within one.

    Each phase is a span; the context ends the last one.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._phase = ""
        self._last = 0.0
        self._span: Span = INVALID_SPAN

    def __enter__(self) -> _Beat:
        return self

    def __exit__(self, *_: object) -> None:
        self._span.end()

    def __call__(self, phase: str) -> None:
        now = time.monotonic()
        if phase == self._phase and now - self._last < _BEAT_SECONDS:
            return
        if phase != self._phase:
            self._span.end()
            self._span = tracing.start(phase)
        self._phase, self._last = phase, now
        self._folder.write(Heartbeat(pid=os.getpid(), phase=phase, time=datetime.now(UTC)))


if __name__ == "__main__":
    raise SystemExit(main())
