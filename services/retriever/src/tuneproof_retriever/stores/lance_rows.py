"""Rows of a LanceDB table, and what they mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tuneproof_retriever.corpus import Passage, PreparedDocument
from tuneproof_retriever.stores.fields import fields_of
from tuneproof_retriever.stores.protocol import StoredPassage
from tuneproof_retriever.stores.tags import tags_of

PASSAGE_COLUMNS = ["id", "document_id", "text", "start", "end", "title", "metadata"]


def schema(dimension: int) -> pa.Schema:
    """Columns of a corpus whose vectors have `dimension` entries."""
    columns = {
        "id": pa.string(),
        "document_id": pa.string(),
        "document_digest": pa.string(),
        "ordinal": pa.uint32(),
        "siblings": pa.uint32(),
        "start": pa.uint32(),
        "end": pa.uint32(),
        "title": pa.string(),
        "text": pa.string(),
        "metadata": pa.string(),
        "tags": pa.list_(pa.string()),
        "vector": pa.list_(pa.float32(), dimension),
    }
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])


def rows_of(documents: Sequence[PreparedDocument], dimension: int) -> pa.Table:
    """One row per passage."""
    rows = [
        {"id": passage.id, **fields_of(document, ordinal)}
        for document in documents
        for ordinal, passage in enumerate(document.passages)
    ]
    numbers = np.concatenate([document.vectors for document in documents]).ravel()
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(numbers, pa.float32()), dimension)
    fields = schema(dimension)
    texts = pa.Table.from_pylist(rows, schema=pa.schema(list(fields)[:-1]))
    return texts.append_column(fields.field("vector"), vectors)


def passage_of_row(row: Mapping[str, Any]) -> Passage:
    """The passage of a row that has `PASSAGE_COLUMNS`."""
    return Passage(
        id=row["id"],
        document_id=row["document_id"],
        text=row["text"],
        start=row["start"],
        end=row["end"],
        title=row["title"],
        metadata=json.loads(row["metadata"]),
    )


def stored_passage_of_row(row: Mapping[str, Any]) -> StoredPassage:
    """As `passage_of_row`, for a row that has `ordinal` and `siblings` too."""
    return StoredPassage(passage_of_row(row), row["ordinal"], row["siblings"])


def predicate(where: Mapping[str, str]) -> str:
    """SQL that holds for passages whose metadata has every entry; empty for no entries."""
    return " AND ".join(f"array_has(tags, '{tag}')" for tag in tags_of(where))
