"""One Weaviate collection per corpus, with the corpus's record as its description.

Collections are made, changed and removed through Weaviate's Raft log: a name is taken once, and a
record is replaced whole, on all nodes. docs/retrieval.md says why corpora are not tenants.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError
from weaviate.classes.config import (
    Configure,
    DataType,
    Property,
    StopwordsPreset,
    Tokenization,
    VectorDistances,
)

from tuneproof_retriever.corpus import Corpus
from tuneproof_retriever.stores.weaviate_options import Layout

COLLECTION_PROPERTIES = {
    "document_id": DataType.TEXT,
    "document_digest": DataType.TEXT,
    "ordinal": DataType.INT,
    "siblings": DataType.INT,
    "start": DataType.INT,
    "end": DataType.INT,
    "title": DataType.TEXT,
    "text": DataType.TEXT,
    "metadata": DataType.TEXT,
    "tags": DataType.TEXT_ARRAY,
    "words": DataType.TEXT,
}
_LEAST_CANDIDATES = 200
"""Of a search in HNSW. Weaviate's own 100 for few hits lose some: see docs/retrieval.md."""
_FILTERED = {"ordinal", "tags"}
_SEARCHED = {"words": Tokenization.WHITESPACE}


@dataclass(frozen=True)
class Filler:
    """The retriever that alone changes an open corpus."""

    id: str
    until: datetime
    """When its claim ends unless it renews it."""
    turn: str
    """Differs between two claims, but not between a claim and its renewal."""


@dataclass(frozen=True)
class Record:
    """What a collection's description holds."""

    corpus: Corpus
    filler: Filler | None = None


_RECORD = TypeAdapter(Record)


def dump(record: Record) -> str:
    """A record as text."""
    return _RECORD.dump_json(record).decode()


def parse(description: str | None) -> Record | None:
    """The record in a collection's description; None when there is none that can be read."""
    try:
        return _RECORD.validate_json(description or "")
    except ValidationError:
        return None


def is_record(description: str | None) -> bool:
    """Whether a description is a record, readable or not, rather than words."""
    return (description or "").lstrip().startswith("{")


def collection_name(prefix: str, name: str) -> str:
    """Weaviate's name for a corpus's collection. Corpora's names hold no underscore."""
    return f"{prefix}_{name.replace('-', '_')}"


def corpus_name(prefix: str, collection: str) -> str | None:
    """The corpus of a collection; None for collections of others."""
    start = f"{prefix}_"
    return collection[len(start) :].replace("_", "-") if collection.startswith(start) else None


def collection(prefix: str, corpus: Corpus, layout: Layout) -> dict[str, Any]:
    """What the client's `collections.create` is given."""
    # Where nothing is said, the server's DEFAULT_QUANTIZATION decides.
    quantizers = Configure.VectorIndex.Quantizer
    quantizer = quantizers.rq(bits=8) if layout.quantised else quantizers.none()
    candidates = {"dynamic_ef_min": _LEAST_CANDIDATES} if layout.index == "hnsw" else {}
    index = getattr(Configure.VectorIndex, layout.index)(
        distance_metric=VectorDistances.COSINE, quantizer=quantizer, **candidates
    )
    return {
        "name": collection_name(prefix, corpus.name),
        "description": dump(Record(corpus)),
        "properties": [_property(name, kind) for name, kind in COLLECTION_PROPERTIES.items()],
        "vector_config": Configure.Vectors.self_provided(vector_index_config=index),
        # The stop words are out already, and `words` are no longer English but stems.
        "inverted_index_config": Configure.inverted_index(stopwords_preset=StopwordsPreset.NONE),
        "replication_config": Configure.replication(factor=layout.replicas),
        "sharding_config": Configure.sharding(desired_count=layout.shards),
    }


def _property(name: str, kind: Any) -> Any:
    searched = _SEARCHED.get(name)
    given: dict[str, Any] = {"index_filterable": name in _FILTERED}
    if kind in (DataType.TEXT, DataType.TEXT_ARRAY):
        given["index_searchable"] = searched is not None
        given["tokenization"] = searched or Tokenization.FIELD
    return Property(name=name, data_type=kind, **given)
