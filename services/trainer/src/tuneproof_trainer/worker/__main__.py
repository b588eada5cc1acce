"""The worker: `python -m tuneproof_trainer.worker STORE RUN ATTEMPT` makes one adapter and ends.

Exit codes: 0 done, 2 bad input, 75 worth another attempt, 130 told to stop; the attempt's result in
the store says it too. Torch and what needs it are imported late, so that wrong data is reported at
once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TextIO, cast

from tuneproof.adapters.storage import open_storage
from tuneproof.servicekit import tracing
from tuneproof.servicekit.errors import Overloaded, TuneproofError, Unavailable
from tuneproof.servicekit.imports import leave_out
from tuneproof_trainer.record import EXIT_CODES, WorkerEnding, WorkerResult
from tuneproof_trainer.runs.store import RunStore
from tuneproof_trainer.worker.output import LOG, Log, also_write
from tuneproof_trainer.worker.processes import Place, end_with_parent, result_file
from tuneproof_trainer.worker.stopping import Stop, StoppedError
from tuneproof_trainer.worker.telling import Reporter
from tuneproof_trainer.worker.work import Work


def main() -> int:
    """The worker's program."""
    asked = _arguments().parse_args()
    sys.stdout, sys.stderr = cast(TextIO, Log(sys.stdout)), cast(TextIO, Log(sys.stderr))
    place = Place.here(asked.local_rank)
    if not place.is_first:
        _help(asked, place)
    with tracing.tracing("tuneproof-trainer-worker"):
        code = _main(asked, place)
    if "WORLD_SIZE" in os.environ:
        _leave(code)
    return code


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tuneproof_trainer.worker")
    parser.add_argument("store", help="URL of the artifact store")
    parser.add_argument("run", help="the run's id")
    parser.add_argument("attempt", type=int, help="the attempt's number")
    parser.add_argument("--folder", type=Path, help=f"for local files; {LOG} in it is stored")
    parser.add_argument(
        "--local-rank", type=int, default=0, help="the worker starts the others of its node by it"
    )
    return parser


def _main(asked: argparse.Namespace, place: Place) -> int:
    stop, parent = Stop(), os.getppid()
    stop.install()
    store = RunStore(open_storage(asked.store))
    folder = _folder(asked)
    if asked.folder is None:
        also_write(folder / LOG)
    reporter = Reporter(store, asked.run, asked.attempt, folder / LOG)

    def finish(result: WorkerResult) -> None:
        try:
            reporter.finish(result)
        except Unavailable as error:
            print(error.message, file=sys.stderr)

    def failed(result: WorkerResult) -> NoReturn:
        print(result.reason, flush=True)
        finish(result)
        _leave(EXIT_CODES[result.ending])

    def work() -> WorkerResult:
        with tracing.span("worker", within=tracing.from_variables()):
            reporter.start()
            return _work(asked, place, stop, folder, failed).do(reporter)

    result = _result_of(work)
    stop.ignore()  # The result is written to its end.
    finish(result)
    if asked.folder is None or os.getppid() != parent:  # Nobody else is left to delete it.
        shutil.rmtree(folder, ignore_errors=True)
    return EXIT_CODES[result.ending]


def _help(asked: argparse.Namespace, place: Place) -> NoReturn:
    """What the other processes of a training do."""
    if place.local:
        end_with_parent()
    stop, folder = Stop(), _folder(asked)
    stop.install()

    def end(result: WorkerResult) -> NoReturn:
        if result.ending is not WorkerEnding.DONE:
            print(result.reason)
        if place.local and result.ending is not WorkerEnding.DONE:
            result_file(folder, place.local).write_text(result.model_dump_json())
        if asked.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
        _leave(EXIT_CODES[result.ending])

    end(_result_of(lambda: _work(asked, place, stop, folder, end).help()))


def _leave(code: int) -> NoReturn:
    """Ends this process at once; see `sharing.part`."""
    sys.stdout.flush()
    os._exit(code)


def _work(
    asked: argparse.Namespace,
    place: Place,
    stop: Stop,
    folder: Path,
    failed: Callable[[WorkerResult], NoReturn],
) -> Work:
    return Work(
        open_storage(asked.store),
        asked.run,
        asked.attempt,
        place=place,
        stop=stop,
        folder=folder,
        failed=failed,
    )


def _folder(asked: argparse.Namespace) -> Path:
    return asked.folder or Path(tempfile.mkdtemp(prefix=f"tuneproof-{asked.run}."))


def _result_of(work: Callable[[], WorkerResult]) -> WorkerResult:
    try:
        return work()
    except StoppedError:
        return WorkerResult(ending=WorkerEnding.STOPPED, reason="the worker was told to stop")
    except Exception as error:  # noqa: BLE001 - the result tells every failure
        traceback.print_exc()
        return _explain(error)


def _explain(error: Exception) -> WorkerResult:
    may_pass = isinstance(error, Unavailable | Overloaded | OSError)
    if isinstance(error, TuneproofError):
        reason = error.message
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        reason = (
            "memory ran out; lower micro_batch_size or max_length, or set gradient_checkpointing"
        )
    else:
        # A process that lost another one says so in gloo's or NCCL's words.
        may_pass = may_pass or "WORLD_SIZE" in os.environ
        reason = f"{type(error).__name__}: {error}; see the run's log in the artifact store"
    return WorkerResult(
        ending=WorkerEnding.RETRY if may_pass else WorkerEnding.BAD_INPUT, reason=reason
    )


if __name__ == "__main__":
    # transformers imports it where it is installed, for what no training uses.
    leave_out("sklearn")
    raise SystemExit(main())
