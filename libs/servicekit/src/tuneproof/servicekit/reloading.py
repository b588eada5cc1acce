"""Files that are replaced while a process runs, as those of a mounted Secret."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from tuneproof.servicekit.errors import InvalidInput

T = TypeVar("T")

_log = structlog.get_logger("tuneproof.files")


class Reloaded(Generic[T]):
    """What is read of files, read again when one of them changes.

    While the new content cannot be read, the old one stays, and the log says why.

    Args:
        files: whose change counts; links are followed.
        read: reads them.

    Raises:
        InvalidInput: by `read`, the first time.
    """

    def __init__(self, files: Sequence[Path], read: Callable[[], T]) -> None:
        self._files = tuple(files)
        self._read = read
        self._seen = self._stamps()
        self._value = read()

    def now(self) -> T:
        """The content at this moment; may be called by several threads."""
        stamps = self._stamps()
        if stamps != self._seen:
            try:
                self._value = self._read()
                _log.info("read again", file=str(self._files[0]))
            except InvalidInput as error:
                _log.error("the old content stays in use", error=error.message)
            # Those before the reading: a file that changed in between is read once more.
            self._seen = stamps
        return self._value

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(file) for file in self._files]


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def read_secret(path: Path, what: str) -> str:
    """The text of a file that holds one secret, without white space around it.

    Raises:
        InvalidInput: it cannot be read, or is empty.
    """
    text = read_text(path, f"{what} from {path}").strip()
    if not text:
        raise InvalidInput(f"{path} is empty: it must hold {what}")
    return text


def read_text(path: Path, named: str) -> str:
    """The text of a file, which errors call `named`.

    Raises:
        InvalidInput: it cannot be read.
    """
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidInput(f"cannot read {named}: {reason}") from None
