"""JSON Lines, packed by gzip or not, and BEIR's `queries.jsonl` and `qrels/<split>.tsv`."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneproof.data.reading.records import Fields, Mistake, Record, document_from
from tuneproof.servicekit.errors import InvalidInput


def records_of(path: Path, fields: Fields) -> Iterator[tuple[str, Record]]:
    """File and line, with the document there: one JSON object a line."""
    for where, value in objects_of(path):
        found = value if isinstance(value, Mistake) else document_from(value, fields, where)
        yield where, found


def objects_of(path: Path) -> Iterator[tuple[str, Any]]:
    """File and line, with the JSON value there or a `Mistake`; blank lines are left out."""
    for where, line in lines_of(path):
        if isinstance(line, Mistake):
            yield where, line
        elif line.strip():
            try:
                yield where, json.loads(line)
            except json.JSONDecodeError as error:
                what = f"is not JSON: column {error.colno}: {error.msg}"
                yield where, Mistake(where, what)
            except (RecursionError, ValueError):  # also of a number with too many digits
                yield where, Mistake(where, "is not JSON that can be read")


def lines_of(path: Path) -> Iterator[tuple[str, str | Mistake]]:
    """File and line, with the line's text or a `Mistake`; one line is in memory at a time.

    Raises:
        InvalidInput: the file cannot be read, or its gzip data end too early.
    """
    number = 0
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                where = f"{path}, line {number}"
                try:
                    yield where, line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    yield where, Mistake(where, f"is not UTF-8 (byte {error.start} of the line)")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInput(
            f"{path}, after line {number}: its gzip data are broken or cut off, fetch it again"
            f" ({error})"
        ) from None
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from None


def queries_of(path: Path) -> dict[str, str]:
    """Queries by id, of BEIR's `queries.jsonl`.

    Raises:
        InvalidInput: naming the file and the line that cannot be used.
    """
    found: dict[str, str] = {}
    for _, record in records_of(path, Fields()):
        if isinstance(record, Mistake):
            raise InvalidInput(str(record))
        found[record.id] = record.text
    return found


def grades_of(path: Path) -> dict[str, dict[str, int]]:
    """Relevance by query and document, of a BEIR file: a head, then lines of three columns.

    Raises:
        InvalidInput: naming the file and the line that cannot be used.
    """
    found: dict[str, dict[str, int]] = {}
    for number, (where, line) in enumerate(lines_of(path)):
        if isinstance(line, Mistake):
            raise InvalidInput(str(line))
        columns = line.rstrip("\r\n").split("\t")
        if columns == [""] or (number == 0 and columns[-1] == "score"):
            continue
        try:
            query, document, grade = columns
            found.setdefault(query, {})[document] = int(grade)
        except ValueError:
            raise InvalidInput(
                f"{where}: expected query id, document id and a whole number, with a tab between"
            ) from None
    return found
