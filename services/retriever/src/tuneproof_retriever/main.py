"""Starts the retriever."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from tuneproof.retriever.v1 import retriever_pb2, retriever_pb2_grpc
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.server import Service, run
from tuneproof_retriever.corpora import Corpora
from tuneproof_retriever.ingestion import Ingestion
from tuneproof_retriever.models import open_embedder, open_reranker
from tuneproof_retriever.searching import Searcher
from tuneproof_retriever.servicer import RetrieverServicer
from tuneproof_retriever.settings import RetrieverSettings
from tuneproof_retriever.stores.protocol import VectorStore
from tuneproof_retriever.stores.weaviate_options import Layout, Server, WeaviateOptions

_EXAMPLES = """examples:
  tuneproof-retriever --bind 127.0.0.1:7101 --store-dir /var/lib/tuneproof/corpora
  tuneproof-retriever --store weaviate --weaviate-url http://weaviate:8080
  tuneproof-retriever --embedder ./models/e5-base --device cuda:0
  tuneproof-retriever --embedder tei --embedder-url http://tei:8080"""


_SPINS = "10000"
"""How often torch's idle threads look for work before they sleep. GNU OpenMP's own choice takes 30
times as long, in which a store on the same machine could search."""


def main() -> int:
    """Runs the service; the exit code."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)  # Read when torch is imported.
    return run(RetrieverSettings, build, name="retriever", examples=_EXAMPLES)


@asynccontextmanager
async def build(settings: RetrieverSettings) -> AsyncIterator[Service]:
    """The service with a store and an embedder of its own.

    Raises:
        InvalidInput: when a setting names what cannot be used.
        Unavailable: when the embedder must be downloaded and cannot.
    """
    async with _open_store(settings) as store:
        embedder = await open_embedder(settings)
        reranker = None
        try:
            reranker = await open_reranker(settings)
            corpora = Corpora(store, embedder.identity, proof_passages=settings.proof_passages)
            servicer = RetrieverServicer(
                corpora,
                Ingestion(corpora, store, embedder, write_passages=settings.write_passages),
                Searcher(
                    corpora,
                    store,
                    embedder,
                    reranker=reranker,
                    cached_queries=settings.cached_queries,
                ),
                embedder.identity,
                search_concurrency=settings.search_concurrency,
            )

            async def check_ready() -> None:
                await store.check_ready()
                await embedder.check_ready()
                if reranker is not None:
                    await reranker.check_ready()

            yield Service(
                register=lambda server: retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(
                    servicer, server
                ),
                descriptors=[retriever_pb2.DESCRIPTOR.services_by_name["RetrieverService"]],
                check_ready=check_ready,
            )
            await corpora.close()
        finally:
            await embedder.close()
            if reranker is not None:
                await reranker.close()


@asynccontextmanager
async def _open_store(settings: RetrieverSettings) -> AsyncIterator[VectorStore]:
    # Each store's library takes most of a second to import, may be absent, and --help needs none.
    try:
        if settings.store == "weaviate":
            from tuneproof_retriever.stores import weaviate_store  # noqa: PLC0415

            opening: AbstractAsyncContextManager[VectorStore] = weaviate_store.open_weaviate_store(
                _weaviate_options(settings)
            )
        else:
            from tuneproof_retriever.stores import lance_store  # noqa: PLC0415

            opening = lance_store.open_lance_store(
                settings.store_dir,
                ann_min_passages=settings.ann_min_passages,
                memory_bytes=settings.memory_mb * 2**20,
            )
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"store {settings.store} needs the package {error.name}: install"
            f" tuneproof-retriever[{settings.store}]",
            field="store",
        ) from None
    async with opening as store:
        yield store


def _weaviate_options(settings: RetrieverSettings) -> WeaviateOptions:
    api_key = settings.weaviate_api_key.get_secret_value()
    return WeaviateOptions(
        Server(
            settings.weaviate_url,
            settings.weaviate_grpc,
            api_key or _content(settings, "weaviate_api_key_file").strip(),
            _content(settings, "weaviate_ca_file"),
            search_seconds=settings.weaviate_search_seconds,
            write_seconds=settings.weaviate_write_seconds,
        ),
        prefix=settings.weaviate_prefix,
        layout=Layout(
            index=settings.weaviate_index,
            quantised=settings.weaviate_quantised,
            replicas=settings.weaviate_replicas,
            shards=settings.weaviate_shards,
        ),
        consistency=settings.weaviate_consistency,
    )


def _content(settings: RetrieverSettings, setting: str) -> str:
    """Text of the file that a setting names; empty where it names none."""
    file: Path | None = getattr(settings, setting)
    if file is None:
        return ""
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", "") or "is not text"
        raise InvalidInput(f"{setting} {file} cannot be read: {why}", field=setting) from None


if __name__ == "__main__":
    raise SystemExit(main())
