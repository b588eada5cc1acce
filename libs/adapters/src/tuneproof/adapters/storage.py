"""The few things a registry asks of the place where it lies: a folder, or what fsspec reaches.

Each write is atomic: a reader sees all of a file or none of it. A folder gets that by a temporary
file, fsync and rename; an object store has it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import urlsplit

from fsspec.core import url_to_fs

from tuneproof.servicekit.errors import InvalidInput, NotFound, Unavailable
from tuneproof.servicekit.files import write_atomically


class Storage(Protocol):
    """Files under one root; paths are relative and use `/`."""

    def names(self, folder: str) -> list[str]:
        """Sorted names in a folder; none when there is no such folder."""

    def size(self, path: str) -> int | None:
        """Bytes of a file; None when there is none."""

    def read(self, path: str) -> bytes:
        """A file's content. Raises NotFound."""

    def write(self, path: str, data: bytes) -> None:
        """Makes or replaces a file."""

    def upload(self, source: Path, path: str) -> None:
        """Makes or replaces a file from a local one."""

    def download(self, path: str, target: Path) -> None:
        """Copies a file to a local one. Raises NotFound."""


def open_storage(url: str) -> Storage:
    """The storage at a URL: a path, file://…, s3://bucket/prefix, or another that fsspec knows.

    Raises:
        InvalidInput: when fsspec knows no such scheme, or its package is missing.
    """
    if not url:
        raise InvalidInput("the URL of the artifact store is empty", field="url")
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        return FolderStorage(Path(parts.path if parts.scheme else url).expanduser().absolute())
    return RemoteStorage(url)


class FolderStorage:
    """A folder of this machine, or one mounted into it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self, folder: str) -> list[str]:
        path = self._root / folder
        return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []

    def size(self, path: str) -> int | None:
        file = self._root / path
        return file.stat().st_size if file.is_file() else None

    def read(self, path: str) -> bytes:
        try:
            return (self._root / path).read_bytes()
        except FileNotFoundError:
            raise _missing(path) from None

    def write(self, path: str, data: bytes) -> None:
        write_atomically(self._root / path, data)

    def upload(self, source: Path, path: str) -> None:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as copy, source.open("rb") as original:
                shutil.copyfileobj(original, copy, 1 << 20)
                copy.flush()
                os.fsync(copy.fileno())
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def download(self, path: str, target: Path) -> None:
        try:
            shutil.copyfile(self._root / path, target)
        except FileNotFoundError:
            raise _missing(path) from None


class RemoteStorage:
    """What fsspec reaches."""

    def __init__(self, url: str) -> None:
        try:
            # Listings are not cached: another process commits.
            self._fs, root = url_to_fs(url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise InvalidInput(f"cannot open {url}: {error}", field="url") from error
        self._root = root.rstrip("/")

    def names(self, folder: str) -> list[str]:
        path = f"{self._root}/{folder}"
        try:
            self._fs.invalidate_cache(path)
            return sorted({PurePosixPath(name).name for name in self._fs.ls(path, detail=False)})
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unreachable(path, error) from error

    def size(self, path: str) -> int | None:
        try:
            return int(self._fs.info(f"{self._root}/{path}")["size"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreachable(path, error) from error

    def read(self, path: str) -> bytes:
        try:
            return bytes(self._fs.cat_file(f"{self._root}/{path}"))
        except FileNotFoundError:
            raise _missing(path) from None
        except OSError as error:
            raise self._unreachable(path, error) from error

    def write(self, path: str, data: bytes) -> None:
        try:
            self._fs.pipe_file(f"{self._root}/{path}", data)
        except OSError as error:
            raise self._unreachable(path, error) from error

    def upload(self, source: Path, path: str) -> None:
        try:
            self._fs.put_file(str(source), f"{self._root}/{path}")
        except OSError as error:
            raise self._unreachable(path, error) from error

    def download(self, path: str, target: Path) -> None:
        try:
            self._fs.get_file(f"{self._root}/{path}", str(target))
        except FileNotFoundError:
            raise _missing(path) from None
        except OSError as error:
            raise self._unreachable(path, error) from error

    def _unreachable(self, path: str, error: OSError) -> Unavailable:
        return Unavailable(f"the artifact store does not give {path}: {error}", retry_after=5.0)


def _missing(path: str) -> NotFound:
    return NotFound(f"no {path} in the artifact store")
