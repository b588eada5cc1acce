"""The adapter registry: where adapters lie, each under its digest, once.

<root>/adapters/<name>/<hex>/
    adapter_model.safetensors  adapter_config.json  README.md   what peft reads
    provenance.json                                              where it comes from
    manifest.json                                                written last: then it exists
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuneproof.adapters.base import BaseIdentity
from tuneproof.adapters.loraconfig import CONFIG_FILE
from tuneproof.adapters.manifest import (
    CARD_FILE,
    DOCUMENT_LIMIT,
    MANIFEST_FILE,
    PROVENANCE_FILE,
    WEIGHTS_FILE,
    WEIGHTS_LIMIT,
    Manifest,
    Provenance,
)
from tuneproof.adapters.ref import AdapterRef, check_name
from tuneproof.adapters.storage import Storage, open_storage
from tuneproof.adapters.tensors import HEADER_LIMIT, WIDTHS
from tuneproof.servicekit.digests import sha256_of_bytes
from tuneproof.servicekit.errors import Corrupted, InvalidInput, NotFound

_ROOT = "adapters"


class Registry:
    """Adapters in one artifact store. Safe to share between threads and processes.

    Args:
        url: the artifact store: a folder, or s3://bucket/prefix.
        max_bytes: the largest weights file that is fetched.

    Raises:
        InvalidInput: for a URL that cannot be opened.
    """

    def __init__(
        self, url: str, *, max_bytes: int = WEIGHTS_LIMIT, storage: Storage | None = None
    ) -> None:
        self._storage = storage or open_storage(url)
        self._max_bytes = max_bytes

    def commit(
        self, folder: Path, *, name: str, base: BaseIdentity, provenance: Mapping[str, Any]
    ) -> AdapterRef:
        """Publishes an adapter that peft wrote into a folder.

        The manifest is written last, so that a crash leaves nothing listed. Committing the same
        content again changes nothing, the provenance included.

        Args:
            folder: adapter_model.safetensors, adapter_config.json, perhaps README.md.
            provenance: values that JSON knows.

        Raises:
            InvalidInput: when the folder holds no sane adapter, or the name is malformed.
            Unavailable: when the store does not answer; committing again is safe.
        """
        check_name(name)
        manifest = Manifest.describe(folder, base)
        ref = AdapterRef(name, manifest.digest)
        place = _place(ref)
        if self._storage.size(f"{place}/{MANIFEST_FILE}") is not None:
            return ref
        for file in (WEIGHTS_FILE, CONFIG_FILE, CARD_FILE):
            if (folder / file).is_file():
                self._storage.upload(folder / file, f"{place}/{file}")
        history = Provenance(ref, provenance).to_bytes()
        self._storage.write(f"{place}/{PROVENANCE_FILE}", history)
        self._storage.write(f"{place}/{MANIFEST_FILE}", manifest.to_bytes())
        return ref

    def take(self, folder: Path, name: str) -> AdapterRef:
        """Publishes an adapter that came from elsewhere with its manifest and provenance.

        Args:
            folder: as `fetch` gives it.

        Raises:
            Corrupted: when its content is not what its manifest says.
            InvalidInput: when the name is malformed.
            Unavailable: when the store does not answer; taking it again is safe.
        """
        check_name(name)
        manifest = Manifest.parse(_read(folder, MANIFEST_FILE))
        _check_content(folder, AdapterRef(name, manifest.digest), manifest)
        details: Mapping[str, Any] = {}
        if (folder / PROVENANCE_FILE).is_file():
            found = Provenance.parse(_read(folder, PROVENANCE_FILE))
            if found.adapter.digest != manifest.digest:
                raise Corrupted(f"{PROVENANCE_FILE} in {folder} is that of {found.adapter}")
            details = found.details
        return self.commit(folder, name=name, base=manifest.base, provenance=details)

    def remove(self, ref: AdapterRef) -> None:
        """Deletes an adapter, the manifest first: from then on it is not listed. Repeatable."""
        for file in (MANIFEST_FILE, PROVENANCE_FILE, CARD_FILE, CONFIG_FILE, WEIGHTS_FILE):
            self._storage.delete(f"{_place(ref)}/{file}")

    def size(self, ref: AdapterRef) -> int:
        """Bytes of the weights; 0 when they are missing."""
        return self._storage.size(f"{_place(ref)}/{WEIGHTS_FILE}") or 0

    def list(self, name: str | None = None) -> tuple[AdapterRef, ...]:
        """Committed adapters, sorted; those of one name only, if given."""
        found = []
        for each in self._storage.names(_ROOT) if name is None else (name,):
            for digits in self._storage.names(f"{_ROOT}/{each}"):
                try:
                    ref = AdapterRef(each, f"sha256:{digits}")
                except InvalidInput:
                    continue  # Not an adapter: a note, or what a file system leaves.
                if self._storage.size(f"{_place(ref)}/{MANIFEST_FILE}") is not None:
                    found.append(ref)
        return tuple(sorted(found))

    def manifest(self, ref: AdapterRef) -> Manifest:
        """The hashed document.

        Raises:
            NotFound: when no such adapter is committed.
            Corrupted: when the stored manifest is not the one that the digest names.
        """
        data = self._document(ref, MANIFEST_FILE)
        if sha256_of_bytes(data) != ref.digest:
            raise Corrupted(
                f"the manifest of {ref} has the digest {sha256_of_bytes(data)}; "
                "commit the adapter again in a new store: this one was altered"
            )
        return Manifest.parse(data)

    def provenance(self, ref: AdapterRef) -> Provenance:
        """The unhashed document.

        Raises:
            NotFound: when no such adapter is committed.
            Corrupted: when it is of another adapter or no provenance.
        """
        self.manifest(ref)
        found = Provenance.parse(self._document(ref, PROVENANCE_FILE))
        if found.adapter != ref:
            raise Corrupted(f"the provenance of {ref} names {found.adapter}")
        return found

    def fetch(self, ref: AdapterRef, cache: Path) -> Path:
        """A local folder with the adapter, verified; loadable by peft and vLLM.

        What is in the cache already is verified again, and replaced if it went bad. Concurrent
        fetches of one adapter are safe.

        Args:
            cache: a folder of this caller's own, made if missing.

        Returns:
            `<cache>/<hex>/`.

        Raises:
            NotFound: when no such adapter is committed.
            Corrupted: when a file is not what the manifest says; the message names the tensor.
            Unavailable: when the store does not answer.
        """
        manifest = self.manifest(ref)
        target = cache / ref.hex
        if target.is_dir() and _is_good(target, ref, manifest):
            return target
        cache.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=cache, prefix=f".{ref.hex[:12]}."))
        try:
            self._download(ref, manifest, fresh)
            _check_content(fresh, ref, manifest)
            _install(fresh, target, ref, manifest)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return target

    def _download(self, ref: AdapterRef, manifest: Manifest, target: Path) -> None:
        place = _place(ref)
        values = sum(math.prod(each.shape) * WIDTHS.get(each.dtype, 8) for each in manifest.tensors)
        limits = {
            WEIGHTS_FILE: min(values + HEADER_LIMIT + 8, self._max_bytes),
            CONFIG_FILE: DOCUMENT_LIMIT,
            PROVENANCE_FILE: DOCUMENT_LIMIT,
            CARD_FILE: DOCUMENT_LIMIT,
        }
        for file, limit in limits.items():
            size = self._storage.size(f"{place}/{file}")
            if size is None and file == CARD_FILE:
                continue
            if size is None:
                raise Corrupted(f"{file} of {ref} is missing in the artifact store")
            if size > limit:
                raise Corrupted(f"{file} of {ref} has {size} bytes, above the limit of {limit}")
            self._storage.download(f"{place}/{file}", target / file)
        (target / MANIFEST_FILE).write_bytes(manifest.to_bytes())

    def _document(self, ref: AdapterRef, file: str) -> bytes:
        path = f"{_place(ref)}/{file}"
        size = self._storage.size(path)
        if size is None:
            raise NotFound(f"no adapter {ref} in the registry", adapter=str(ref))
        if size > DOCUMENT_LIMIT:
            raise Corrupted(f"{file} of {ref} has {size} bytes, above {DOCUMENT_LIMIT}")
        return self._storage.read(path)


def _read(folder: Path, file: str) -> bytes:
    """A document that came from elsewhere. Raises Corrupted when it is missing or too large."""
    path = folder / file
    if not path.is_file() or path.stat().st_size > DOCUMENT_LIMIT:
        raise Corrupted(f"no {file} of at most {DOCUMENT_LIMIT} bytes in {folder}")
    return path.read_bytes()


def _place(ref: AdapterRef) -> str:
    return f"{_ROOT}/{ref.name}/{ref.hex}"


def _is_good(folder: Path, ref: AdapterRef, manifest: Manifest) -> bool:
    try:
        _check_content(folder, ref, manifest)
    except Corrupted:
        return False
    return (folder / MANIFEST_FILE).is_file()


def _check_content(folder: Path, ref: AdapterRef, manifest: Manifest) -> None:
    """Raises Corrupted unless a folder holds exactly what the manifest says."""
    try:
        found = Manifest.describe(folder, manifest.base)
    except InvalidInput as error:
        raise Corrupted(f"{ref}: {error.message}") from None
    here, there = ({each.name: each for each in one.tensors} for one in (found, manifest))
    if different := sorted(here.keys() ^ there.keys()):
        raise Corrupted(f"{ref}: weights and manifest differ in the tensors {different[:5]}")
    for name, tensor in here.items():
        if tensor != there[name]:
            raise Corrupted(
                f"{ref}: tensor {name} is not what was committed; fetch it again, and if that gives"
                " the same, the stored file is damaged",
                tensor=name,
            )
    if found.config != manifest.config:
        raise Corrupted(f"{ref}: {CONFIG_FILE} is not what was committed")


def _install(fresh: Path, target: Path, ref: AdapterRef, manifest: Manifest) -> None:
    if target.exists() and not _is_good(target, ref, manifest):
        damaged = Path(tempfile.mkdtemp(dir=target.parent, prefix=".damaged."))
        target.rename(damaged / target.name)
        shutil.rmtree(damaged, ignore_errors=True)
    try:
        fresh.rename(target)
    except OSError:
        if not target.is_dir():
            raise  # Not another fetch that was faster.
