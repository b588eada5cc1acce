"""What the retriever can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from tuneproof.servicekit.settings import ServiceSettings, settings_config
from tuneproof_retriever.embedders.model_folder import PACKAGED_MODEL


class RetrieverSettings(ServiceSettings):
    """Keeps frozen corpora of passages and searches them."""

    model_config = settings_config("retriever")

    store: Literal["lancedb"] = Field(
        "lancedb", description="Where corpora live: `lancedb` is a folder, used by one retriever."
    )
    store_dir: Path = Field(
        Path("corpora"), description="Folder of the corpora; made where it is missing."
    )
    embedder: str = Field(
        PACKAGED_MODEL,
        description="What turns text into vectors: a folder in sentence-transformers format (needs"
        f" no network), a model id, or `{PACKAGED_MODEL}` for the model inside the package of that"
        " name. Corpora made with another one cannot be searched.",
    )
    embedder_revision: str = Field(
        "",
        description="Branch, tag or commit of an embedder that is a model id; empty is its main"
        " branch. The embedder's digest tells whether two have the same content.",
    )
    device: str = Field(
        "", description="torch device of the embedder, as `cpu` or `cuda:0`; empty chooses."
    )
    torch_threads: int = Field(
        0, ge=0, description="Threads of the embedder on a CPU; 0 leaves torch's own choice."
    )
    embed_batch: int = Field(
        32,
        ge=1,
        le=1024,
        description="Texts that are embedded at once. More is faster on a GPU and takes more of its"
        " memory; during ingestion queries wait longer.",
    )
    write_passages: int = Field(
        512,
        ge=1,
        description="Passages in one write. A crash during ingestion loses at most this many;"
        " sending the stream again stores them.",
    )
    search_concurrency: int = Field(
        16, ge=1, description="Searches of one SearchBatch stream that run at the same time."
    )
    ann_min_passages: int = Field(
        100_000,
        ge=1000,
        description="Corpora of this size and more get an approximate vector index; smaller ones"
        " are searched exactly.",
    )
