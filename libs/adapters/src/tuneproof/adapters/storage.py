"""The artifact store: a folder, or what fsspec reaches.

    Storage          what the registry, the trainer and the generator's pool ask of it
    FolderStorage    a folder of this machine, or one mounted into it
    RemoteStorage    S3, or another store that fsspec reaches

Each write is atomic: a reader sees all of a file or none of it. A folder gets that by a temporary
file, fsync and rename; an object store's writes are atomic anyway. `bounded` limits a call's time.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Protocol
from urllib.parse import urlsplit

from fsspec.core import url_to_fs

from tuneproof.servicekit.errors import InvalidInput, NotFound, Unavailable
from tuneproof.servicekit.files import write_atomically

_RETRY_SECONDS = 5.0


class ObjectStore(Protocol):
    """Small objects under one root; paths are relative and use `/`.

    Each call raises Unavailable when the store does not answer.
    """

    def names(self, folder: str) -> list[str]:
        """Sorted names in a folder; none when the folder does not exist. A name that begins with
        a dot is a write under way."""

    def size(self, path: str) -> int | None:
        """Bytes of an object; None when it does not exist."""

    def read(self, path: str) -> bytes:
        """An object's content. Raises NotFound."""

    def write(self, path: str, data: bytes) -> None:
        """Makes or replaces an object."""

    def create(self, path: str, data: bytes) -> bool:
        """Makes an object unless it exists; whether it was made. Of two at once one wins."""

    def delete(self, path: str) -> None:
        """Removes an object, if it exists."""


class Storage(ObjectStore, Protocol):
    """Objects and large files under one root."""

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
        self._was_there = False

    def names(self, folder: str) -> list[str]:
        path = self._at(folder)
        return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []

    def size(self, path: str) -> int | None:
        file = self._at(path)
        return file.stat().st_size if file.is_file() else None

    def read(self, path: str) -> bytes:
        try:
            return self._at(path).read_bytes()
        except FileNotFoundError:
            raise _missing(path) from None

    def write(self, path: str, data: bytes) -> None:
        write_atomically(self._at(path), data)

    def create(self, path: str, data: bytes) -> bool:
        target = self._at(path)
        with _draft(target, io.BytesIO(data)) as draft:
            try:
                # A link, unlike a rename, never replaces.
                os.link(draft, target)
            except FileExistsError:
                return False
        return True

    def delete(self, path: str) -> None:
        self._at(path).unlink(missing_ok=True)

    def upload(self, source: Path, path: str) -> None:
        target = self._at(path)
        with source.open("rb") as original, _draft(target, original) as draft:
            draft.replace(target)

    def download(self, path: str, target: Path) -> None:
        try:
            shutil.copyfile(self._at(path), target)
        except FileNotFoundError:
            raise _missing(path) from None

    def _at(self, path: str) -> Path:
        # A share that was unmounted looks like an empty folder.
        if self._root.is_dir():
            self._was_there = True
        elif self._was_there:
            raise Unavailable(
                f"the artifact store is gone: {self._root} existed before",
                retry_after=_RETRY_SECONDS,
            )
        return self._root / path


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
        try:
            with self._at(folder, may_lack=True) as path:
                self._fs.invalidate_cache(path)
                found = self._fs.ls(path, detail=False)
        except NotFound:
            return []
        return sorted({PurePosixPath(name).name for name in found})

    def size(self, path: str) -> int | None:
        try:
            with self._at(path, may_lack=True) as place:
                return int(self._fs.info(place)["size"])
        except NotFound:
            return None

    def read(self, path: str) -> bytes:
        with self._at(path, may_lack=True) as place:
            return bytes(self._fs.cat_file(place))

    def write(self, path: str, data: bytes) -> None:
        with self._at(path) as place:
            self._fs.pipe_file(place, data)

    def create(self, path: str, data: bytes) -> bool:
        """As `ObjectStore.create`; the store must know create-if-absent, as S3 does."""
        with self._at(path) as place:
            try:
                self._fs.pipe_file(place, data, mode="create")
            except FileExistsError:
                return False
        return True

    def delete(self, path: str) -> None:
        with suppress(NotFound), self._at(path, may_lack=True) as place:
            self._fs.rm_file(place)

    def upload(self, source: Path, path: str) -> None:
        with self._at(path) as place:
            self._fs.put_file(str(source), place)

    def download(self, path: str, target: Path) -> None:
        with self._at(path, may_lack=True) as place:
            self._fs.get_file(place, str(target))

    @contextmanager
    def _at(self, path: str, *, may_lack: bool = False) -> Iterator[str]:
        """Where a path lies; fsspec's errors in the block become ours.

        Args:
            may_lack: whether a missing file is NotFound; else, as in a bucket that does not exist,
                it is Unavailable.
        """
        try:
            yield f"{self._root}/{path}"
        # Besides OSError: botocore's own errors, as of an endpoint that is down (1.43).
        except Exception as error:
            if may_lack and isinstance(error, FileNotFoundError):
                raise _missing(path) from None
            raise Unavailable(
                f"the artifact store does not answer for {path}: {error}",
                retry_after=_RETRY_SECONDS,
            ) from error


@contextmanager
def _draft(target: Path, content: IO[bytes]) -> Iterator[Path]:
    """A whole file beside its target; removed at the end unless it was renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _missing(path: str) -> NotFound:
    return NotFound(f"no {path} in the artifact store")
