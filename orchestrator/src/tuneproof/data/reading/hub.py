"""Data sets of Hugging Face, by the library `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from tuneproof.data.reading.records import Fields, Record, document_from
from tuneproof.servicekit.errors import InvalidInput

PREFIX = "hf:"
"""Before the name of a data set."""


@dataclass(frozen=True)
class HubData:
    """A data set, as the command line names it."""

    name: str
    """`organisation/name`, or a local folder that `datasets` can read."""
    config: str = ""
    split: str = "train"

    def records(self, fields: Fields) -> Iterator[tuple[str, Record]]:
        """The documents of its rows, each with its place.

        Without a column for ids their numbers are the ids.
        """
        columns = self.columns
        if fields.text not in columns:
            raise InvalidInput(
                f"{self.name} has no column {fields.text!r}; it has {', '.join(columns)}:"
                " choose one with --text-field"
            )
        numbered = not fields.id and not {"_id", "id"} & set(columns)
        names = replace(fields, id="number") if numbered else fields
        for number, (where, row) in enumerate(self.rows()):
            value = {**row, "number": number} if numbered else row
            yield where, document_from(value, names, where)

    @property
    def columns(self) -> list[str]:
        """Their names."""
        return list(_load(self).column_names)

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name, split and number, with the row; numbers begin with 0, as `datasets` counts."""
        for number, row in enumerate(_load(self)):
            yield f"{self.name} ({self.split}), row {number}", row


@cache
def _load(data: HubData) -> Any:
    """The rows, kept in files that are mapped into memory."""
    try:
        import datasets  # noqa: PLC0415 - an extra
    except ImportError:
        raise InvalidInput(
            "a data set of Hugging Face needs its library: install it with"
            " `pip install 'tuneproof[datasets]'`"
        ) from None
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(data.name, data.config or None, split=data.split)
    except Exception as error:  # noqa: BLE001 - what it raises depends on the hub and the format
        raise InvalidInput(
            f"cannot load the data set {data.name} (config {data.config or 'default'}, split"
            f" {data.split}): {error}"
        ) from None
