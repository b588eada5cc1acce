"""Folders of Markdown, text and PDF: a document for each file."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from tuneproof.data.items import Document
from tuneproof.data.reading.records import Mistake, Record, checked
from tuneproof.servicekit.errors import InvalidInput

_FORMATS = {".md": "markdown", ".markdown": "markdown", ".txt": "text", ".pdf": "pdf"}
_TITLE = re.compile(r"^# +(\S.*)$", re.MULTILINE)
_MOST_TITLE = 200
"""Characters; the embedder reads the title before every passage."""


def files_of(folder: Path) -> list[Path]:
    """The files that can be read, in all folders below, sorted; hidden ones are left out."""
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _FORMATS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not found:
        raise InvalidInput(f"{folder} holds no file ending in {', '.join(_FORMATS)}")
    return found


def records_of(folder: Path, *, survey: bool = False) -> Iterator[tuple[str, Record]]:
    """The files, each with its document; the path in the folder is the id.

    Args:
        survey: does not extract the text of PDF files, which takes most of the time.
    """
    for path in files_of(folder):
        name = path.relative_to(folder).as_posix()
        kind = _FORMATS[path.suffix.lower()]
        try:
            record = _pdf(path, name, survey=survey) if kind == "pdf" else _text(path, name, kind)
        except OSError as error:
            record = Mistake(str(path), f"cannot be read: {error.strerror}")
        yield str(path), record


def _text(path: Path, name: str, kind: str) -> Record:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Mistake(str(path), f"is not UTF-8 text (byte {error.start})")
    title = _TITLE.search(text) if kind == "markdown" else None
    found = Document(name, text, title[1][:_MOST_TITLE] if title else "", {"format": kind})
    return checked(found, str(path))


def _pdf(path: Path, name: str, *, survey: bool) -> Record:
    with path.open("rb") as file:
        # Readers look for the mark in the first 1,024 bytes.
        if b"%PDF-" not in file.read(1024):
            return Mistake(str(path), "is not a PDF file, although its name ends in .pdf")
    try:
        import pypdf  # noqa: PLC0415 - an extra
    except ImportError:
        raise InvalidInput(
            f"{path} needs the PDF reader: install it with `pip install 'tuneproof[pdf]'`"
        ) from None
    if survey:
        return Document(name, "not read yet")
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = pypdf.PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            return Mistake(str(path), "needs a password")
        text = "\n\n".join(page.extract_text() for page in reader.pages)
        title = (reader.metadata and reader.metadata.title) or ""
    except Exception as error:  # noqa: BLE001 - pypdf raises anything for a broken file
        return Mistake(str(path), f"cannot be read as PDF: {error or type(error).__name__}")
    if not text.strip():
        return Mistake(str(path), "holds no text; scanned pages need text recognition first")
    # A surrogate without its half comes from a broken font table.
    text = text.encode("utf-8", "replace").decode()
    facts = {"format": "pdf", "pages": str(len(reader.pages))}
    return checked(Document(name, text, str(title)[:_MOST_TITLE], facts), str(path))
