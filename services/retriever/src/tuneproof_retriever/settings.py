"""What the retriever can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from tuneproof.servicekit.http import is_http
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
        " name; `tei` or `openai` for a server at `--embedder-url`. Corpora made with another one"
        " cannot be searched.",
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
        description="The embedder's server's key. Set it in the environment: other users of the"
        " machine can see flags.",
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
        " model id of a cross-encoder, or `tei` for a server at `--reranker-url`. Empty: nothing.",
    )
    reranker_revision: str = Field(
        "", description="Branch, tag or commit of a reranker that is a model id."
    )
    reranker_url: str = Field(
        "", description="Address of a server of Text Embeddings Inference with a reranker."
    )
    reranker_api_key: SecretStr = Field(
        SecretStr(""), description="The reranker's server's key; set it in the environment."
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
        8, ge=1, le=1024, description="Requests in flight to the server of a model."
    )
    model_timeout: float = Field(
        30.0,
        gt=0,
        description="Seconds for one request to the server of a model. A slower one is repeated"
        " until the caller's deadline.",
    )
    cached_queries: int = Field(
        4096,
        ge=0,
        description="Latest queries whose vectors are kept in memory, at 4 bytes a dimension; the"
        " metric `tuneproof_retriever_query_vectors_total` counts how often they serve.",
    )
    write_passages: int = Field(
        512,
        ge=1,
        description="Passages in one write. A crash during ingestion loses at most so many; sending"
        " the stream again stores them.",
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

    @model_validator(mode="after")
    def _models_are_complete(self) -> RetrieverSettings:
        missing = []
        if self.embedder in ("tei", "openai"):
            if not is_http(self.embedder_url):
                missing.append(
                    f"embedder {self.embedder} needs embedder_url, an http:// or https:// URL"
                )
            if self.embedder == "openai" and not self.embedder_tokenizer:
                missing.append("embedder openai needs embedder_tokenizer")
        elif self.embedder_url:
            missing.append("embedder_url is for the embedders tei and openai; set --embedder")
        if self.reranker == "tei" and not is_http(self.reranker_url):
            missing.append("reranker tei needs reranker_url, an http:// or https:// URL")
        if missing:
            raise ValueError("; ".join(missing))
        return self
