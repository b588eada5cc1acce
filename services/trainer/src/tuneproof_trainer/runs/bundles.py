"""Folders in the artifact store that appear whole or not at all.

<bundle>/<file>          each of the folder's files
<bundle>/manifest.json   written last: sizes and digests of the files; then the bundle exists

A bundle without a manifest is what an interrupted writer left; nobody reads it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from tuneproof.adapters import Storage
from tuneproof.servicekit.digests import sha256_of_file
from tuneproof.servicekit.errors import Corrupted, NotFound

_MANIFEST = "manifest.json"


class _File(BaseModel, frozen=True, extra="forbid"):
    bytes: int
    digest: str


class _Manifest(BaseModel, frozen=True, extra="forbid"):
    files: dict[str, _File]


class Bundles:
    """The bundles in one folder of the store. Its calls block.

    Args:
        folder: in the store.
    """

    def __init__(self, store: Storage, folder: str) -> None:
        self._store = store
        self._folder = folder

    def save(self, name: str, source: Path) -> None:
        """Stores the files of a local folder, none in folders below it. The same name again
        replaces it.

        Raises:
            OSError: when the store is a folder on a disk that is full.
            Unavailable: when the store does not answer. What was stored before stays either way.
        """
        place = f"{self._folder}/{name}"
        self._store.delete(f"{place}/{_MANIFEST}")
        files = sorted(path for path in source.iterdir() if path.is_file())
        for file in files:
            self._store.upload(file, f"{place}/{file.name}")
        listed = {
            file.name: _File(bytes=file.stat().st_size, digest=sha256_of_file(file))
            for file in files
        }
        content = _Manifest(files=listed).model_dump_json(indent=2).encode()
        self._store.write(f"{place}/{_MANIFEST}", content)

    def load(self, name: str, target: Path) -> None:
        """Copies a bundle into a local folder, which is made.

        Raises:
            NotFound: when there is none of that name, or it is being deleted.
            Corrupted: when a file is not what was stored.
        """
        place = f"{self._folder}/{name}"
        try:
            manifest = _Manifest.model_validate_json(self._store.read(f"{place}/{_MANIFEST}"))
        except ValidationError:
            raise Corrupted(f"{place}/{_MANIFEST} in the artifact store is no manifest") from None
        target.mkdir(parents=True)
        for file, expected in manifest.files.items():
            self._store.download(f"{place}/{file}", target / file)
            if sha256_of_file(target / file) != expected.digest:
                raise Corrupted(f"{place}/{file} in the artifact store is not what was stored")

    def exists(self, name: str) -> bool:
        """Whether a whole bundle of that name is there."""
        return self._store.size(f"{self._folder}/{name}/{_MANIFEST}") is not None

    def names(self) -> list[str]:
        """Whole bundles, sorted."""
        return [name for name in self._store.names(self._folder) if self.exists(name)]

    def delete(self, name: str) -> None:
        """Removes a bundle, whole or not: its manifest first."""
        place = f"{self._folder}/{name}"
        self._store.delete(f"{place}/{_MANIFEST}")
        for file in self._store.names(place):
            with suppress(NotFound):
                self._store.delete(f"{place}/{file}")
