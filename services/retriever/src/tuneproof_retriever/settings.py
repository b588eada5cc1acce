"""What the retriever can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from tuneproof.servicekit.http import is_http
from tuneproof.servicekit.settings import ServiceSettings, settings_config, split_address
from tuneproof_retriever.embedders.model_folder import PACKAGED_MODEL

_OF_EMBEDDERS: dict[str, tuple[str, ...]] = {
    "embedder_url": ("tei", "openai"),
    "embedder_model": ("tei", "openai"),
    "embedder_query_prompt": ("tei", "openai"),
    "embedder_passage_prompt": ("tei", "openai"),
    "embedder_tokenizer": ("openai",),
    "embedder_max_tokens": ("openai",),
}
"""Settings that other embedders would ignore."""


class RetrieverSettings(ServiceSettings):
    """Keeps frozen corpora of passages and searches them."""

    model_config = settings_config("retriever")

    store: Literal["lancedb", "weaviate"] = Field(
        "lancedb",
        description="Where corpora live: `lancedb` is a folder, used by one retriever; `weaviate`"
        " is a Weaviate server, which several retrievers may share.",
    )
    store_dir: Path = Field(
        Path("corpora"), description="Folder of LanceDB's corpora; made where it is missing."
    )
    embedder: str = Field(
        PACKAGED_MODEL,
        description="What turns text into vectors: a folder in sentence-transformers format (needs"
        f" no network), a model id, or `{PACKAGED_MODEL}` for the model inside the package of that"
        " name; `tei` or `openai` for a server at `--embedder-url`. A folder of such a name is"
        " `./tei`. Corpora made with another one cannot be searched.",
    )
    embedder_revision: str = Field(
        "",
        description="Branch, tag or commit of an embedder that is a model id; empty is its main"
        " branch. The embedder's digest tells whether two have the same content. For a server that"
        " does not tell its revision: any mark that changes with its weights.",
    )
    embedder_url: str = Field(
        "",
        description="Address of the embedder's server: with `tei` that of Text Embeddings"
        " Inference, with `openai` the base URL of an OpenAI-compatible API, as http://vllm:8000/v1.",
    )
    embedder_model: str = Field(
        "",
        description="The model's name on the server. Empty takes the only one there is; with `tei`"
        " another one is refused.",
    )
    embedder_api_key: SecretStr = Field(
        SecretStr(""),
        description="API key of the embedder's server. Set it in the environment: other users of"
        " the machine can see flags.",
    )
    embedder_tokenizer: str = Field(
        "",
        description="With `openai`: the model's tokenizer, a folder that holds tokenizer.json or a"
        " model id. It cuts documents into passages; the protocol has no call for it.",
    )
    embedder_max_tokens: int = Field(
        0,
        ge=0,
        description="With `openai`: tokens of the longest text that the model reads, special tokens"
        " included; 0 takes what the server tells, as vLLM does.",
    )
    embedder_query_prompt: str = Field(
        "",
        description="Prompt of queries: with `tei` the name of one that the model defines, with"
        " `openai` the text itself, as `query: `. A model in process uses its own.",
    )
    embedder_passage_prompt: str = Field(
        "", description="The same for passages. Corpora made with another one cannot be searched."
    )
    reranker: str = Field(
        "",
        description="What reads the best passages again where a search asks for it: a folder or a"
        " model id of a cross-encoder, or `tei` for a server at `--reranker-url`; a folder of that"
        " name is `./tei`. Empty: nothing.",
    )
    reranker_revision: str = Field(
        "", description="Branch, tag or commit of a reranker that is a model id."
    )
    reranker_url: str = Field(
        "", description="Address of a server of Text Embeddings Inference with a reranker."
    )
    reranker_api_key: SecretStr = Field(
        SecretStr(""), description="API key of the reranker's server; set it in the environment."
    )
    device: str = Field(
        "",
        description="torch device of models in this process, as `cpu` or `cuda:0`; empty chooses.",
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
    model_concurrency: int = Field(
        8, ge=1, le=1024, description="Requests in flight to a model server."
    )
    model_timeout: float = Field(
        30.0,
        gt=0,
        description="Seconds for one request to a model server. A slower one is repeated until the"
        " caller's deadline.",
    )
    cached_queries: int = Field(
        4096,
        ge=0,
        description="Latest queries that are kept in memory with their vectors, at 4 bytes a"
        " dimension; the metric `tuneproof_retriever_query_vectors_total` counts how often they"
        " serve.",
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
    memory_mb: int = Field(
        256,
        ge=0,
        description="MiB of LanceDB's smaller corpora that are kept in memory, those searched last."
        " Corpora that do not fit beside one that was searched in the last half minute are searched"
        " on disk.",
    )
    ann_min_passages: int = Field(
        100_000,
        ge=1000,
        description="Corpora of this size and more get an approximate vector index when they are"
        " frozen; smaller ones are searched exactly.",
    )
    proof_passages: int = Field(
        500,
        ge=1,
        description="Passages of an undisturbed import that freezing looks up by their own vector"
        " and words, drawn at random. After an interrupted import it looks up all of them.",
    )
    weaviate_url: str = Field(
        "http://127.0.0.1:8080",
        description="Weaviate's HTTP address. With https gRPC is encrypted too.",
    )
    weaviate_grpc: str = Field(
        "", description="Weaviate's gRPC address, host:port; empty is port 50051 of the URL's host."
    )
    weaviate_api_key: SecretStr = Field(
        SecretStr(""),
        description="Weaviate's API key. Set it in the environment or use the file: other users of"
        " the machine can see flags.",
    )
    weaviate_api_key_file: Path | None = Field(
        None, description="File that holds Weaviate's API key, read at the start."
    )
    weaviate_ca_file: Path | None = Field(
        None,
        description="File of the authorities, in PEM, that may sign Weaviate's certificates;"
        " without it public ones may.",
    )
    weaviate_prefix: str = Field(
        "Tuneproof",
        pattern=r"^[A-Z][A-Za-z0-9]{0,62}$",
        description="Begins the names of Weaviate's collections; retrievers with the same prefix"
        " share their corpora.",
    )
    weaviate_index: Literal["hnsw", "flat"] = Field(
        "hnsw",
        description="Vector index of new corpora in Weaviate: `hnsw` is approximate and fast,"
        " `flat` exact and as slow as the corpus is large.",
    )
    weaviate_quantised: bool = Field(
        False,
        description="Whether new corpora in Weaviate also keep their vectors with 8 bits an entry"
        " (rotational quantisation), which needs about a quarter of the memory.",
    )
    weaviate_replicas: int = Field(
        1, ge=1, description="Nodes of Weaviate that hold each passage of a new corpus."
    )
    weaviate_shards: int = Field(
        1,
        ge=1,
        description="Parts of a new corpus on different nodes of Weaviate. Each part counts words"
        " for itself, so with more than one keyword scores depend on where a passage is.",
    )
    weaviate_consistency: Literal["ONE", "QUORUM", "ALL"] = Field(
        "QUORUM", description="How many of these nodes must answer a read and a write."
    )
    weaviate_search_seconds: float = Field(
        5.0,
        gt=0,
        description="Longest wait for a search in Weaviate before it fails with UNAVAILABLE; keep"
        " it below the callers' deadlines.",
    )
    weaviate_write_seconds: float = Field(
        60.0, gt=0, description="Longest wait for one batch of an import into Weaviate."
    )

    @field_validator("weaviate_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        url = urlsplit(value)
        # A password would be shown in messages, and the client would not send it.
        more = url.username or url.password or url.path.strip("/") or url.query or url.fragment
        if not is_http(value) or more or not _has_port_in_range(value):
            raise ValueError("it must be http://host:port or https://host:port")
        return value.rstrip("/")

    @field_validator("weaviate_grpc")
    @classmethod
    def _is_grpc_address(cls, value: str) -> str:
        if value:
            split_address(value)
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> RetrieverSettings:
        mistakes = []
        if self.weaviate_api_key.get_secret_value() and self.weaviate_api_key_file:
            mistakes.append(
                "weaviate_api_key and weaviate_api_key_file are both set: leave one out"
            )
        if self.embedder in ("tei", "openai"):
            if not is_http(self.embedder_url):
                folder = (
                    f"; the folder is ./{self.embedder}" if Path(self.embedder).is_dir() else ""
                )
                mistakes.append(
                    f"embedder {self.embedder} needs embedder_url, an http:// or https:// URL"
                    + folder
                )
            if self.embedder == "openai" and not self.embedder_tokenizer:
                mistakes.append("embedder openai needs embedder_tokenizer")
        for setting, embedders in _OF_EMBEDDERS.items():
            if getattr(self, setting) and self.embedder not in embedders:
                mistakes.append(
                    f"{setting} is for the embedder {' or '.join(embedders)}; set --embedder"
                )
        if self.reranker == "tei" and not is_http(self.reranker_url):
            mistakes.append("reranker tei needs reranker_url, an http:// or https:// URL")
        if self.reranker_url and self.reranker != "tei":
            mistakes.append("reranker_url is for the reranker tei; set --reranker")
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self


def _has_port_in_range(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False
