"""The cache of query vectors, and the embedder on a server behind the whole service."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY
from pydantic import ValidationError

from tuneproof.retriever.v1 import retriever_pb2 as pb
from tuneproof.retriever.v1 import retriever_pb2_grpc
from tuneproof.servicekit.client import connect, typed_errors
from tuneproof.servicekit.errors import InvalidInput, WrongState
from tuneproof.servicekit.testing import serving
from tuneproof_retriever.main import build
from tuneproof_retriever.query_cache import QueryCache
from tuneproof_retriever.settings import RetrieverSettings

from .tei_fake import running

SERVICES = [pb.DESCRIPTOR.services_by_name["RetrieverService"]]


def counted(source: str) -> float:
    name = "tuneproof_retriever_query_vectors_total"
    return REGISTRY.get_sample_value(name, {"source": source}) or 0.0


def test_the_query_that_was_not_asked_for_the_longest_goes_first() -> None:
    cache = QueryCache(2)
    vectors = {text: np.full(2, number, dtype=np.float32) for number, text in enumerate("abc")}
    for text in "ab":
        assert cache.get(text) is None
        cache.put(text, vectors[text])
    assert cache.get("a") is vectors["a"]
    cache.put("c", vectors["c"])
    assert cache.get("b") is None
    assert cache.get("a") is vectors["a"]
    assert cache.get("c") is vectors["c"]


def test_a_cache_of_none_keeps_none() -> None:
    cache = QueryCache(0)
    cache.put("a", np.ones(2, dtype=np.float32))
    assert cache.get("a") is None


@pytest.mark.timeout(60)
async def test_a_corpus_made_by_one_server_s_model_is_not_searched_by_another_s(
    tmp_path: Path,
) -> None:
    documents = [
        pb.Document(id=f"doc-{number}", text=f"Birch {number} receives. " * 20)
        for number in range(40)
    ]
    async with running() as fake:
        settings = RetrieverSettings(
            store_dir=tmp_path, embedder="tei", embedder_url=fake.url, write_passages=16
        )
        async with (
            build(settings) as service,
            serving(service) as target,
            connect(target, services=SERVICES) as channel,
        ):
            stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
            chunking = pb.Chunking(max_tokens=40, overlap_tokens=5)
            await stub.CreateCorpus(pb.CreateCorpusRequest(name="c", chunking=chunking))
            message = pb.IngestDocumentsRequest(corpus="c", documents=documents)
            report = await stub.IngestDocuments(iter([message]))
            assert report.documents_added == 40
            assert report.passages_added > 80
            frozen = (await stub.FreezeCorpus(pb.FreezeCorpusRequest(name="c"))).corpus
            assert frozen.embedder.id == "org/embedder"
            texts = fake.texts()
            asked = pb.SearchRequest(corpus="c", query="Birch 7 receives.", k=3)
            hits, misses = counted("cache"), counted("embedder")
            first, again = await stub.Search(asked), await stub.Search(asked)
            assert first.passages == again.passages
            assert fake.texts() == [*texts, "Birch 7 receives."], "asked once"
            assert counted("cache") - hits == 1
            assert counted("embedder") - misses == 1
            with pytest.raises(InvalidInput, match="query has 70 tokens"), typed_errors():
                await stub.Search(pb.SearchRequest(corpus="c", query="word " * 70))
        fake.model_sha = "d4e5f6"
        async with (
            build(settings) as service,
            serving(service) as target,
            connect(target, services=SERVICES) as channel,
        ):
            stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
            with pytest.raises(WrongState, match="was made with the embedder"), typed_errors():
                await stub.Search(asked)
            by_words = pb.SearchRequest(corpus="c", query="Birch", mode=pb.SEARCH_MODE_KEYWORD)
            assert (await stub.Search(by_words)).corpus_digest == frozen.digest


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"embedder": "tei"}, "needs embedder_url"),
        ({"embedder": "openai", "embedder_url": "http://a/v1"}, "needs embedder_tokenizer"),
        ({"embedder": "openai"}, "needs embedder_url.*; .*needs embedder_tokenizer"),
        ({"embedder_url": "http://a"}, "set --embedder"),
        ({"reranker": "tei", "reranker_url": "a:1"}, "reranker tei needs reranker_url"),
    ],
)
def test_settings_of_servers_that_do_not_fit_are_refused(
    settings: dict[str, str], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        RetrieverSettings(**settings)
