"""What a worker tells while it works: heartbeat, losses, log; and whether it still may.

A thread of its own renews the heartbeat, whatever the training does. What the store does not take
is told later. The thread also looks whether the run is still this worker's: the newest state names
the attempt that is. A worker that was taken over, or whose run was cancelled, ends.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from opentelemetry.trace import INVALID_SPAN, Span

from tuneproof.servicekit import tracing
from tuneproof.servicekit.errors import NotFound, Unavailable
from tuneproof.servicekit.processes import this_process
from tuneproof_trainer.progress import Step
from tuneproof_trainer.record import Heartbeat, RunState, WorkerResult
from tuneproof_trainer.runs.store import RunStore
from tuneproof_trainer.worker.stopping import StoppedError

T = TypeVar("T")

_TELL_SECONDS = 0.3
"""Between two writes of losses, at least."""
_LOG_SECONDS = 15.0
_LOG_BYTES = 4 << 20
"""A longer log is stored without its beginning."""
_AGAIN_SECONDS = 2.0
_PATIENCE_SECONDS = 900.0
"""How long a store may be away while the worker needs it."""


class Reporter:
    """One attempt's voice.

    Args:
        log: the local file with the output of this process; None when there is none.
    """

    def __init__(self, store: RunStore, run_id: str, attempt: int, log: Path | None) -> None:
        self._store = store
        self._run_id = run_id
        self._attempt = attempt
        self._log = log
        self._metrics = store.metrics(run_id)
        self._process = this_process()
        self._phase = "starting"
        self._span: Span = INVALID_SPAN
        self._step: Step | None = None
        self._untold: list[Step] = []
        self._checkpoint_step = 0
        self._warning = ""
        self._sequence = 0
        self._beat_seconds = 1.0
        self._beaten_at = self._logged_at = 0.0
        self._news = threading.Event()
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        self._ends = False
        self._superseded = False
        self._thread = threading.Thread(target=self._tell, name="reporter", daemon=True)

    def start(self) -> None:
        """Begins to tell; the first heartbeat is written before this returns.

        Raises:
            StoppedError: when the run is not this worker's any more.
        """
        patiently(self._beat)
        self._thread.start()

    def beat_every(self, seconds: float) -> None:
        """Sets how often the heartbeat is renewed."""
        self._beat_seconds = seconds

    def phase(self, name: str) -> None:
        """Another part of the work begins; each is a span."""
        if name != self._phase:
            self._span.end()
            self._span = tracing.start(name)
            self._phase = name
            self._beaten_at = 0.0
            self._news.set()

    def step(self, step: Step) -> None:
        """An optimiser step is done."""
        with self._lock:
            self._step = step
            self._untold.append(step)
        self._news.set()

    def warn(self, text: str) -> None:
        """What goes wrong without ending the run; empty once it is well again."""
        if text != self._warning:
            if text:
                print(f"warning: {text}", flush=True)
            self._warning, self._beaten_at = text, 0.0
            self._news.set()

    def saved(self, step: int) -> None:
        """The checkpoint of a step is stored."""
        self._checkpoint_step, self._beaten_at = step, 0.0
        self._news.set()

    def flush(self) -> None:
        """Stores the losses so far: those before a checkpoint are told by no later attempt.

        Raises:
            Unavailable: when the store does not answer.
        """
        with self._telling:
            with self._lock:
                new = list(self._untold)
            if new:
                self._metrics.write(new)
                with self._lock:
                    del self._untold[: len(new)]

    def check(self) -> None:
        """Raises StoppedError when the run is not this worker's any more."""
        try:
            status = self._store.newest(self._run_id)
        except NotFound:
            self._superseded = True
        else:
            mine = (RunState.RUNNING, self._attempt)
            self._superseded = (status.state, status.attempt) != mine
        if self._superseded:
            print("this run was cancelled, or another worker has taken it over", flush=True)
            raise StoppedError

    def finish(self, result: WorkerResult) -> None:
        """Tells the rest, the result last; nothing when the run is another worker's."""
        self._span.end()
        self._ends = True
        self._news.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._superseded:
            return
        patiently(self.flush)
        patiently(self._write_log)
        patiently(self._write_beat)
        patiently(lambda: self._store.write(result, self._run_id, self._attempt))

    def _tell(self) -> None:
        while not self._ends:
            self._news.wait(min(self._beat_seconds, 1.0))
            self._news.clear()
            try:
                self.flush()
                if time.monotonic() - self._beaten_at >= self._beat_seconds:
                    self._beat()
                if time.monotonic() - self._logged_at >= _LOG_SECONDS:
                    self._write_log()
            except Unavailable as error:
                print(f"not told yet: {error.message}", flush=True)
                time.sleep(_TELL_SECONDS)
            except StoppedError:
                os.kill(os.getpid(), signal.SIGINT)
                return
            if not self._ends:
                time.sleep(_TELL_SECONDS)

    def _beat(self) -> None:
        self._beaten_at = time.monotonic()
        try:
            self.check()
            self._write_beat()
        except Unavailable:
            self._beaten_at = 0.0
            raise

    def _write_beat(self) -> None:
        self._sequence += 1
        beat = Heartbeat(
            process=self._process,
            sequence=self._sequence,
            phase=self._phase,
            time=datetime.now(UTC),
            step=self._step,
            checkpoint_step=self._checkpoint_step,
            warning=self._warning,
        )
        self._store.write(beat, self._run_id, self._attempt)

    def _write_log(self) -> None:
        self._logged_at = time.monotonic()
        if self._log is None or not self._log.is_file():
            return
        with self._log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _LOG_BYTES))
            self._store.write_log(file.read(), self._run_id, self._attempt)


def patiently(action: Callable[[], T]) -> T:
    """Does an action on the store, again while that does not answer.

    Raises:
        Unavailable: when it did not for too long.
    """
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return action()
        except Unavailable as error:
            if time.monotonic() > end:
                raise
            print(f"waiting: {error.message}", flush=True)
            time.sleep(_AGAIN_SECONDS)
