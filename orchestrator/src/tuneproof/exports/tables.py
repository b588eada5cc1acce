"""Rows as CSV or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuneproof.analysis.rows import Row
from tuneproof.servicekit.errors import InvalidInput

_NUMBERS = ("score_", "sd_", "mean_")
"""Columns that are numbers even where no row has one."""


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """A head and a line for each row, in UTF-8; an empty cell is None, lists are JSON."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if rows:
            writer.writerow(rows[0])
        writer.writerows([_cell(value) for value in row.values()] for row in rows)


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """The rows with a type for each column.

    Raises:
        InvalidInput: pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415 - an extra
    except ImportError:
        raise InvalidInput(
            "Parquet needs pyarrow: install it with `pip install 'tuneproof[parquet]'`, or take"
            " --format csv"
        ) from None
    table = pa.Table.from_pylist([dict(row) for row in rows])
    for place, field in enumerate(table.schema):
        if pa.types.is_null(field.type):
            kind = pa.float64() if field.name.startswith(_NUMBERS) else pa.string()
            table = table.set_column(place, field.name, table.column(place).cast(kind))
    parquet.write_table(table, path, compression="zstd")
