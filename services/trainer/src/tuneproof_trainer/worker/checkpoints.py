"""The checkpoints of one run: found, saved in the background, old ones deleted.

Training never waits for the store. A checkpoint that cannot be stored is kept on this machine and
tried again, until a newer one takes its place.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tuneproof.servicekit.errors import Corrupted, NotFound, TuneproofError
from tuneproof_trainer.record import Job
from tuneproof_trainer.runs.bundles import Bundles
from tuneproof_trainer.worker.stopping import Stop

_AGAIN_SECONDS = 2.0


class Checkpoints:
    """What one worker saves, and what it goes on from.

    Args:
        bundles: the run's checkpoints in the store.
        stop: what the worker was told.
        before: done before a checkpoint is stored.
        warn: told why a checkpoint is not stored, and an empty text once one is.
        saved: told the step of each stored checkpoint.
        clock: steady, in seconds.
    """

    def __init__(
        self,
        bundles: Bundles,
        job: Job,
        *,
        stop: Stop,
        before: Callable[[], None] = lambda: None,
        warn: Callable[[str], None] = print,
        saved: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bundles = bundles
        self._job = job
        self.stop = stop
        self._before = before
        self.warn = warn
        self._saved = saved
        self._clock = clock
        self._last = clock()
        self._waiting: tuple[int, Path] | None = None
        self._news = threading.Condition()
        self._busy = False
        self._closed = False
        self._thread = threading.Thread(target=self._store, name="checkpoints", daemon=True)
        self._thread.start()

    def newest(self, target: Path) -> Path | None:
        """Copies the newest whole checkpoint into a local folder; None when there is none.

        Raises:
            Unavailable: when the store does not answer.
        """
        for name in reversed(self._bundles.names()):
            try:
                self._bundles.load(name, target / name)
            except (Corrupted, NotFound) as error:
                self.warn(f"checkpoint {int(name)} is left out: {error.message}")
                shutil.rmtree(target / name, ignore_errors=True)
                continue
            self._last = self._clock()
            self._saved(int(name))
            return target / name
        return None

    def load(self, step: int, target: Path) -> Path:
        """Copies the checkpoint of a step into a local folder.

        Raises:
            NotFound, Corrupted, Unavailable: as `Bundles.load`.
        """
        name = _name(step)
        self._bundles.load(name, target / name)
        return target / name

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is saved after this step."""
        steps, minutes = self._job.checkpoint_steps, self._job.checkpoint_minutes
        if steps and step % steps == 0:
            return True
        return minutes > 0 and self._clock() - self._last >= minutes * 60

    def add(self, step: int, folder: Path) -> None:
        """Stores a local folder as the checkpoint of a step, and deletes it; returns at once."""
        self._last = self._clock()
        with self._news:
            older, self._waiting = self._waiting, (step, folder)
            self._news.notify_all()
        if older is not None:
            shutil.rmtree(older[1], ignore_errors=True)

    def flush(self) -> None:
        """Waits until everything is stored."""
        with self._news:
            self._news.wait_for(lambda: self._waiting is None and not self._busy)

    def close(self) -> None:
        """Stores nothing more; waits for what is being stored."""
        with self._news:
            self._closed, self._waiting = True, None
            self._news.notify_all()
            self._news.wait_for(lambda: not self._busy)

    def _store(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting is not None or self._closed)
                if self._waiting is None:
                    return
                (step, folder), self._waiting = self._waiting, None
                self._busy = True
            try:
                trouble = self._try(step, folder)
            finally:
                with self._news:
                    self._busy = False
                    newer = self._waiting is not None or self._closed
                    if trouble and not newer:
                        self._waiting = (step, folder)
                    self._news.notify_all()
            if not trouble or newer:
                shutil.rmtree(folder, ignore_errors=True)
            elif trouble:
                time.sleep(_AGAIN_SECONDS)

    def _try(self, step: int, folder: Path) -> str:
        """Stores a checkpoint; what prevents it, in words."""
        try:
            self._before()
            self._bundles.save(_name(step), folder)
        except (TuneproofError, OSError) as error:
            said = error.message if isinstance(error, TuneproofError) else str(error)
            trouble = f"the checkpoint of step {step} is not stored: {said}"
            self.warn(trouble)
            return trouble
        self.warn("")
        self._saved(step)
        try:
            for name in self._bundles.names()[: -self._job.keep_checkpoints]:
                self._bundles.delete(name)
        except (TuneproofError, OSError) as error:
            self.warn(f"old checkpoints are not deleted: {error}")
        return ""


def _name(step: int) -> str:
    return f"{step:08d}"
