"""How a retriever uses a Weaviate server. Imports nothing of Weaviate's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Server:
    """Where a Weaviate server is, and how long it may take."""

    url: str
    """As `http://weaviate:8080`; https also encrypts gRPC."""
    grpc: str = ""
    """host:port; empty: the URL's host, port 50051."""
    api_key: str = field(default="", repr=False)
    ca: str = field(default="", repr=False)
    """Certificates, in PEM, of the authorities that may sign the server's; empty: public ones."""
    search_seconds: float = 5.0
    """Longest search, and longest wait for an answer about a collection."""
    write_seconds: float = 60.0
    """Longest write of a batch, and longest page of a scan."""


@dataclass(frozen=True)
class Layout:
    """How the passages of new corpora are kept; corpora that exist keep theirs."""

    index: Literal["hnsw", "flat"] = "hnsw"
    quantised: bool = False
    """Whether vectors are kept with 8 bits an entry beside the exact ones (rotational)."""
    replicas: int = 1
    shards: int = 1
    """BM25 counts words by shard, so with more than one its scores depend on where a passage is."""


@dataclass(frozen=True)
class WeaviateOptions:
    """How a retriever uses a server."""

    server: Server
    prefix: str = "Tuneproof"
    """Begins the names of its collections."""
    layout: Layout = field(default_factory=Layout)
    consistency: str = "QUORUM"
    """How many replicas must answer a read and a write: ONE, QUORUM or ALL."""
