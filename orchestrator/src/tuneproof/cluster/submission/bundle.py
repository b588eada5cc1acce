"""The study file and what it names, packed so that a ConfigMap holds it."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from tuneproof.servicekit.errors import InvalidInput

MOST_BYTES = 1_000_000
"""A ConfigMap holds 1 MiB, its other entries included."""
_MODEL = "config.json"
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Bundle:
    """Files of a study."""

    packed: bytes
    """tar, gzip; the same bytes for the same files."""
    study: str
    """Path of the study file in it."""
    data: str
    """Path of the file that `--data` names; empty without one."""

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of what is packed."""
        return f"sha256:{sha256(self.packed).hexdigest()}"


def pack(study: Path, data: Path | None = None) -> Bundle:
    """Packs a study file, the files and folders that it names, and its data.

    Folders of base models stay: the services have them.

    Raises:
        InvalidInput: a path in the study file is absolute, or all is too large.
    """
    study = study.resolve()
    files = {study, *_named_in(study)}
    if data is not None:
        data = data.resolve()
        files.update(_files_of(data))
    root = Path(os.path.commonpath([file.parent for file in files]))
    contents = {file.relative_to(root).as_posix(): file.read_bytes() for file in files}
    packed = _packed(contents)
    if len(packed) > MOST_BYTES:
        largest = sorted(contents, key=lambda name: len(contents[name]), reverse=True)[:_SHOWN]
        raise InvalidInput(
            f"{study.name} and its files take {len(packed) / 1e6:.1f} MB packed, and a ConfigMap"
            f" holds {MOST_BYTES / 1e6:.0f} MB. The largest: {', '.join(largest)}. Submit a smaller"
            " part, name a data set of the hub, or run the study from here with --context"
        )
    inside = data.relative_to(root).as_posix() if data is not None else ""
    return Bundle(packed, study.relative_to(root).as_posix(), inside)


def unpack(packed: bytes, folder: Path) -> None:
    """Writes the files into a folder."""
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        archive.extractall(folder, filter="data")


def _named_in(study: Path) -> Iterator[Path]:
    """The files that the texts in a study file name."""
    for text in _texts(yaml.safe_load(study.read_text("utf-8"))):
        if len(text) > 4096 or "\n" in text or "\0" in text:
            continue
        path = study.parent / text
        if not text.strip() or not path.exists() or path.resolve() == study.parent:
            continue
        if Path(text).is_absolute():
            raise InvalidInput(
                f"{study} names {text}, an absolute path, which the Job lacks: write it relative"
                " to the study file, or give the data by --data"
            )
        yield from _files_of(path.resolve())


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if (path / _MODEL).is_file():
        return []
    return sorted(
        each
        for each in path.rglob("*")
        if each.is_file() and not any(part.startswith(".") for part in each.parts[-2:])
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _packed(contents: dict[str, bytes]) -> bytes:
    """Without times and owners, which would change the digest."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name in sorted(contents):
            entry = tarfile.TarInfo(name)
            entry.size = len(contents[name])
            archive.addfile(entry, io.BytesIO(contents[name]))
    return gzip.compress(plain.getvalue(), mtime=0)
