"""CSV files whose first row names the columns."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tuneproof.data.reading.lines import lines_of
from tuneproof.data.reading.records import Mistake
from tuneproof.servicekit.errors import InvalidInput

_LONGEST_CELL = 2**31 - 1
"""Characters; the standard library's own limit, 131,072, is below the length of some articles."""


class _Unreadable(Exception):
    """A line that is not text: what follows it cannot be cut into rows."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(str(mistake))
        self.mistake = mistake


def rows_of(path: Path, delimiter: str = ",") -> Iterator[tuple[str, dict[str, str] | Mistake]]:
    """File, row and line, with the row's cells by column or a `Mistake`.

    Rows are counted from 1 below the head, and blank lines left out; the line is the row's last.
    A quote that is not closed ends the table.

    Raises:
        InvalidInput: there is no head, or two of its columns have one name.
    """
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(_text_of(path), delimiter=delimiter, strict=True)
    number = 0
    try:
        head = next(reader, None)
        _check(head, path)
        for cells in reader:
            if not cells:
                continue
            number += 1
            where = f"{path}, row {number} (line {reader.line_num})"
            if head is None or len(cells) != len(head):
                yield where, Mistake(where, f"has {len(cells)} cells, the head {len(head or ())}")
            else:
                yield where, dict(zip(head, cells, strict=True))
    except csv.Error as error:
        where = f"{path}, row {number + 1} (line {reader.line_num})"
        yield where, Mistake(where, f"cannot be read as CSV, nor can what follows: {error}")
    except _Unreadable as error:
        yield error.mistake.where, error.mistake


def _text_of(path: Path) -> Iterator[str]:
    for _, line in lines_of(path):
        if isinstance(line, Mistake):
            raise _Unreadable(line)
        yield line


def _check(head: list[str] | None, path: Path) -> None:
    if not head or not any(name.strip() for name in head):
        raise InvalidInput(f"{path} lacks a head: its first row names the columns")
    if twice := [name for name, count in Counter(head).items() if count > 1]:
        raise InvalidInput(f"{path}, head: {', '.join(map(repr, twice))} names several columns")
