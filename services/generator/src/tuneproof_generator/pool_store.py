"""The pool's folder in the artifact store: small objects that every replica reads.

<artifacts>/pools/<model>/adapters/<name>/<hex>.json   one per declared adapter
<artifacts>/pools/<model>/aliases/<alias>/<n>.json     one per change of an alias, n from 1
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

from fsspec.core import url_to_fs

from tuneproof.adapters import open_storage
from tuneproof.servicekit.errors import Unavailable


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


def open_pool(artifacts: str, model_name: str) -> PoolStore:
    """The folder of the pool that serves a base model.

    Args:
        artifacts: URL of the artifact store: a folder, or s3://bucket/prefix.

    Raises:
        InvalidInput: for a URL that cannot be opened.
    """
    url = f"{artifacts.rstrip('/')}/pools/{quote(model_name, safe='')}"
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        folder = Path(parts.path if parts.scheme else url).expanduser().absolute()
        return FolderPool(folder)
    return RemotePool(url)


class FolderPool:
    """A folder of this machine, or one mounted into it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._storage = open_storage(str(root))

    def names(self, folder: str) -> list[str]:
        return self._storage.names(folder)

    def read(self, path: str) -> bytes:
        return self._storage.read(path)

    def write(self, path: str, data: bytes) -> None:
        self._storage.write(path, data)

    def create(self, path: str, data: bytes) -> bool:
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
        (self._root / path).unlink(missing_ok=True)


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
        except OSError as error:
            raise _unreachable(path, error) from error
        return True

    def delete(self, path: str) -> None:
        try:
            self._fs.rm_file(f"{self._root}/{path}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unreachable(path, error) from error


def _unreachable(path: str, error: OSError) -> Unavailable:
    return Unavailable(f"the artifact store does not take {path}: {error}", retry_after=5.0)
