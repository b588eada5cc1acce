"""Data sets of Hugging Face, by the library `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from tuneproof.corpora.records import Fields, Record, document_from
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

    def records(self, fields: Fields) -> Iterator[Record]:
        """Its rows; without a column for ids their numbers are the ids."""
        rows = _load(self)
        columns = rows.column_names
        if fields.text not in columns:
            raise InvalidInput(
                f"{self.name} has no column {fields.text!r}; it has {', '.join(columns)}:"
                " choose one with --text-field"
            )
        numbered = not fields.id and not {"_id", "id"} & set(columns)
        names = replace(fields, id="number") if numbered else fields
        for number, row in enumerate(rows):
            where = f"{self.name} ({self.split}), row {number}"
            yield document_from({**row, "number": number} if numbered else row, names, where)


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
