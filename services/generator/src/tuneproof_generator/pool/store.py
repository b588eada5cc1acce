"""The pool's folder in the artifact store: small objects that every replica reads.

<artifacts>/pools/<model>/adapters/<name>/<hex>.json   one per declared adapter
<artifacts>/pools/<model>/aliases/<alias>/<n>.json     one per change of an alias, n from 1
<artifacts>/pools/<model>/replicas/<replica>.json      one per replica, renewed while it lives
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar
from urllib.parse import quote, urlsplit

from fsspec.core import url_to_fs

from tuneproof.adapters import open_storage
from tuneproof.servicekit.errors import TuneproofError, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

_MOST_HANGING = 32
_RETRY_SECONDS = 5.0


def content_of(data: bytes) -> dict[str, Any]:
    """What an object of the pool's folder holds.

    Raises:
        ValueError: when it is no JSON object, as after a write that was cut off.
    """
    try:
        content = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(content, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - about a value, not an argument's type
    return content


class PoolStore(Protocol):
    """Objects under the pool's folder; paths are relative and use `/`."""

    def names(self, folder: str) -> list[str]:
        """Sorted names in a folder; none when there is no such folder."""
        ...

    def read(self, path: str) -> bytes:
        """An object's content. Raises NotFound."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Makes or replaces an object; readers see all of it or none."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Makes an object unless there is one; whether it was made. Of two at once one wins."""
        ...

    def delete(self, path: str) -> None:
        """Removes an object, if it is there."""
        ...


def open_pool(artifacts: str, model_name: str, *, seconds: float = 10.0) -> PoolStore:
    """The folder of the pool that serves a base model.

    Args:
        artifacts: URL of the artifact store: a folder, or s3://bucket/prefix.
        seconds: how long one call may take.

    Raises:
        InvalidInput: for a URL that cannot be opened.
    """
    url = f"{artifacts.rstrip('/')}/pools/{quote(model_name, safe='')}"
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        folder = Path(parts.path if parts.scheme else url).expanduser().absolute()
        return BoundedPool(FolderPool(folder), seconds)
    return BoundedPool(RemotePool(url), seconds)


class BoundedPool:
    """A pool's folder that answers in time, or fails with `Unavailable`, whatever goes wrong.

    A call runs in a thread of its own: one that hangs in a dead network file system can neither be
    ended nor hold up the end of the process.

    Args:
        seconds: how long one call may take.
    """

    def __init__(self, store: PoolStore, seconds: float) -> None:
        self._store = store
        self._seconds = seconds
        self._hanging = threading.BoundedSemaphore(_MOST_HANGING)

    def names(self, folder: str) -> list[str]:
        return self._within(self._store.names, folder)

    def read(self, path: str) -> bytes:
        return self._within(self._store.read, path)

    def write(self, path: str, data: bytes) -> None:
        self._within(self._store.write, path, data)

    def create(self, path: str, data: bytes) -> bool:
        return self._within(self._store.create, path, data)

    def delete(self, path: str) -> None:
        self._within(self._store.delete, path)

    def _within(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Raises Unavailable when the call does not end in time, or fails for no reason of ours."""
        if not self._hanging.acquire(blocking=False):
            raise _unreachable(f"{_MOST_HANGING} calls hang already")
        outcome: Future[T] = Future()

        def work() -> None:
            try:
                outcome.set_result(call(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                outcome.set_exception(error)
            finally:
                self._hanging.release()

        threading.Thread(target=work, name="pool-store", daemon=True).start()
        try:
            return outcome.result(self._seconds)
        except TuneproofError:
            raise
        except TimeoutError:
            raise _unreachable(f"no answer within {self._seconds:g} s for {args[0]}") from None
        except Exception as error:
            # Besides OSError: botocore's own errors, as of an endpoint that is down (1.43).
            reason = (isinstance(error, OSError) and error.strerror) or str(error) or repr(error)
            raise _unreachable(f"{reason} ({args[0]})") from error


class FolderPool:
    """A folder of this machine, or one mounted into it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._storage = open_storage(str(root))
        self._was_there = False

    def names(self, folder: str) -> list[str]:
        self._check()
        return self._storage.names(folder)

    def read(self, path: str) -> bytes:
        self._check()
        return self._storage.read(path)

    def write(self, path: str, data: bytes) -> None:
        self._check()
        self._storage.write(path, data)

    def create(self, path: str, data: bytes) -> bool:
        self._check()
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # A link fails where a rename would replace.
            os.link(name, target)
        except FileExistsError:
            return False
        finally:
            Path(name).unlink(missing_ok=True)
        return True

    def delete(self, path: str) -> None:
        self._check()
        (self._root / path).unlink(missing_ok=True)

    def _check(self) -> None:
        # A share that is not mounted any more looks like an empty pool.
        if self._root.is_dir():
            self._was_there = True
        elif self._was_there:
            raise _unreachable(f"{self._root} was there and is not any more")


class RemotePool:
    """What fsspec reaches; the store must know create-if-absent, as S3 does."""

    def __init__(self, url: str) -> None:
        self._storage = open_storage(url)
        self._fs, root = url_to_fs(url, use_listings_cache=False)
        self._root = root.rstrip("/")

    def names(self, folder: str) -> list[str]:
        return self._storage.names(folder)

    def read(self, path: str) -> bytes:
        return self._storage.read(path)

    def write(self, path: str, data: bytes) -> None:
        self._storage.write(path, data)

    def create(self, path: str, data: bytes) -> bool:
        try:
            self._fs.pipe_file(f"{self._root}/{path}", data, mode="create")
        except FileExistsError:
            return False
        return True

    def delete(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{path}")


def _unreachable(reason: str) -> Unavailable:
    return Unavailable(
        f"the artifact store does not serve the pool: {reason}", retry_after=_RETRY_SECONDS
    )
