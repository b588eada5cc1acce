"""An artifact store that answers in time, or fails with `Unavailable`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from tuneproof.adapters.storage import ObjectStore
from tuneproof.servicekit.errors import TuneproofError, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

_MOST_HANGING = 32
_RETRY_SECONDS = 5.0


class BoundedStore:
    """An `ObjectStore` whose every call ends in time, whatever goes wrong.

    A call runs in a thread of its own. A thread that hangs in a dead network file system cannot be
    ended, but it does not delay the end of the process.

    Args:
        seconds: how long one call may take.
    """

    def __init__(self, store: ObjectStore, seconds: float) -> None:
        self._store = store
        self._seconds = seconds
        self._hanging = threading.BoundedSemaphore(_MOST_HANGING)

    def names(self, folder: str) -> list[str]:
        return self._within(self._store.names, folder)

    def size(self, path: str) -> int | None:
        return self._within(self._store.size, path)

    def read(self, path: str) -> bytes:
        return self._within(self._store.read, path)

    def write(self, path: str, data: bytes) -> None:
        self._within(self._store.write, path, data)

    def create(self, path: str, data: bytes) -> bool:
        return self._within(self._store.create, path, data)

    def delete(self, path: str) -> None:
        self._within(self._store.delete, path)

    def _within(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Raises Unavailable when the call takes too long, or a library's error ends it."""
        if not self._hanging.acquire(blocking=False):
            raise _unavailable(f"{_MOST_HANGING} calls hang already")
        result: Future[T] = Future()

        def work() -> None:
            try:
                result.set_result(call(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - the caller gets it
                result.set_exception(error)
            finally:
                self._hanging.release()

        threading.Thread(target=work, name="artifact-store", daemon=True).start()
        try:
            return result.result(self._seconds)
        except TuneproofError:
            raise
        except TimeoutError:
            raise _unavailable(f"no answer within {self._seconds:g} s for {args[0]}") from None
        except Exception as error:
            # Besides OSError: botocore's own errors, as of an endpoint that is down (1.43).
            reason = (isinstance(error, OSError) and error.strerror) or str(error) or repr(error)
            raise _unavailable(f"{reason} ({args[0]})") from error


def _unavailable(reason: str) -> Unavailable:
    return Unavailable(f"the artifact store does not answer: {reason}", retry_after=_RETRY_SECONDS)
