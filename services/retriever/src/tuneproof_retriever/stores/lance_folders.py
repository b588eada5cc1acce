"""The folders of a LanceDB store: one per corpus, made and removed in one step.

<root>/.lock              held while a process uses the store
<root>/<name>/corpus.json the corpus's record
<root>/<name>/*.lance     its passages
<root>/.new-*, .gone-*    what a crash left; removed at the next start
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tuneproof.servicekit.errors import Corrupted, InvalidInput, NotFound, Unavailable
from tuneproof.servicekit.files import write_atomically
from tuneproof.servicekit.locks import Holder, locked
from tuneproof_retriever.corpus import Corpus

_RECORD = "corpus.json"
_NEW, _GONE = ".new-", ".gone-"
_CORPUS = TypeAdapter(Corpus)


class CorpusFolders:
    """The folders under one root."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def of(self, name: str) -> Path:
        """The folder of a corpus, there or not."""
        return self._root / name

    def exists(self, name: str) -> bool:
        """Whether there is such a corpus."""
        return (self.of(name) / _RECORD).is_file()

    def names(self) -> list[str]:
        """All corpora, sorted."""
        found = (path.name for path in self._root.iterdir() if not path.name.startswith("."))
        return sorted(name for name in found if self.exists(name))

    def load(self, name: str) -> Corpus:
        """The record of a corpus."""
        path = self.of(name) / _RECORD
        try:
            return _CORPUS.validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"there is no corpus {name!r}", corpus=name) from None
        except ValidationError as error:
            raise Corrupted(
                f"the record of corpus {name!r} cannot be read ({error.error_count()} mistakes in"
                f" {_RECORD}); restore it, or delete the corpus and ingest again",
                corpus=name,
            ) from None

    def save(self, corpus: Corpus) -> None:
        """Replaces the record of a corpus."""
        if not self.exists(corpus.name):
            raise NotFound(f"there is no corpus {corpus.name!r}", corpus=corpus.name)
        self._write(self.of(corpus.name), corpus)

    def draft(self, corpus: Corpus) -> Path:
        """A new folder with the record in it, not a corpus until it is published."""
        folder = Path(tempfile.mkdtemp(prefix=_NEW, dir=self._root))
        self._write(folder, corpus)
        return folder

    def publish(self, draft: Path, name: str) -> bool:
        """Makes a draft the corpus of that name; False when the name is taken."""
        try:
            draft.rename(self.of(name))
        except OSError:
            if not self.exists(name):
                raise
            shutil.rmtree(draft)
            return False
        return True

    def remove(self, name: str) -> None:
        """Removes a corpus: first its name, then its content."""
        gone = Path(tempfile.mkdtemp(prefix=_GONE, dir=self._root))
        try:
            self.of(name).rename(gone / name)
        except FileNotFoundError:
            gone.rmdir()
            raise NotFound(f"there is no corpus {name!r}", corpus=name) from None
        shutil.rmtree(gone)

    def sweep(self) -> None:
        """Removes what interrupted calls left."""
        for path in self._root.iterdir():
            if path.name.startswith((_NEW, _GONE)):
                shutil.rmtree(path)

    def check(self) -> None:
        """Raises `Unavailable` when the root cannot be used."""
        if not os.access(self._root, os.R_OK | os.W_OK | os.X_OK):
            raise Unavailable(f"the store's folder {self._root} is gone or may not be written")

    def _write(self, folder: Path, corpus: Corpus) -> None:
        write_atomically(folder / _RECORD, _CORPUS.dump_json(corpus, indent=1))


@contextmanager
def opened(root: Path) -> Iterator[CorpusFolders]:
    """The folders under `root`, which no other process may use meanwhile.

    Raises:
        InvalidInput: when the folder cannot be made, or another process uses it.
    """

    def refuse(holder: Holder) -> InvalidInput:
        return InvalidInput(
            f"the store's folder {root} is in use by another retriever ({holder}); end it, or"
            " choose another store_dir",
            field="store_dir",
        )

    with ExitStack() as held:
        try:
            held.enter_context(locked(root / ".lock", refuse))
        except OSError as error:
            raise InvalidInput(
                f"the store's folder {root} cannot be used: {error.strerror}; choose another"
                " store_dir",
                field="store_dir",
            ) from None
        folders = CorpusFolders(root)
        folders.sweep()
        yield folders
