"""Reranking: a cross-encoder in process, one on a TEI server, and Search with either."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from tuneproof.retriever.v1 import retriever_pb2 as pb
from tuneproof.retriever.v1 import retriever_pb2_grpc
from tuneproof.servicekit.client import connect, typed_errors
from tuneproof.servicekit.errors import InvalidInput, TuneproofError, Unavailable, WrongState
from tuneproof.servicekit.testing import serving
from tuneproof_retriever import main
from tuneproof_retriever.embedders.model_folder import PACKAGED_MODEL, find_model
from tuneproof_retriever.endpoint import Endpoint
from tuneproof_retriever.reranking.cross_encoder import CrossEncoderReranker, load_cross_encoder
from tuneproof_retriever.reranking.tei_reranker import TeiReranker, open_tei_reranker
from tuneproof_retriever.settings import RetrieverSettings

from .tei_fake import TeiFake, half, overlap, overloaded, running, status

pytestmark = [pytest.mark.long, pytest.mark.timeout(60)]

DOCUMENTS = [
    pb.Document(id=f"doc-{number}", text=f"The Birch {number} receives at {number} GHz.")
    for number in range(30)
]


@pytest.fixture(scope="module")
def cross_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny cross-encoder with random weights and the packaged model's tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny-cross-encoder"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(find_model(PACKAGED_MODEL) / "tokenizer.json"),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        num_labels=1,
        initializer_range=1.0,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@asynccontextmanager
async def cross_encoder(folder: Path) -> AsyncIterator[CrossEncoderReranker]:
    reranker = load_cross_encoder(str(folder), device="cpu", batch_size=4)
    yield reranker
    await reranker.close()


async def at_once(_seconds: float) -> None:
    await asyncio.sleep(0)


@asynccontextmanager
async def tei_reranker(fake: TeiFake) -> AsyncIterator[TeiReranker]:
    reranker = await open_tei_reranker(Endpoint("TEI", fake.url), patience=0.3, sleep=at_once)
    fake.asked.clear()
    yield reranker
    await reranker.close()


async def refusal(call: object) -> TuneproofError:
    with pytest.raises(TuneproofError) as caught, typed_errors():
        await call
    return caught.value


async def test_a_cross_encoder_scores_each_pair_by_itself_and_the_same_every_time(
    cross_encoder_folder: Path,
) -> None:
    texts = [
        document.text + " more words" * (number % 3) for number, document in enumerate(DOCUMENTS)
    ]
    async with cross_encoder(cross_encoder_folder) as reranker:
        together = await reranker.scores("which Birch is it?", texts)
        alone = [(await reranker.scores("which Birch is it?", [text]))[0] for text in texts]
        assert together == pytest.approx(alone, abs=1e-4)
        assert len({round(score, 4) for score in together}) > 20
        assert min(together) < 0 or max(together) > 1, "logits, not probabilities"
        assert await reranker.scores("another query", texts) != pytest.approx(together, abs=1e-4)
        assert reranker.identity.id == "tiny-cross-encoder"
        assert reranker.identity.digest.startswith("sha256:")
        await reranker.check_ready()


async def test_a_cross_encoder_truncates_nothing(cross_encoder_folder: Path) -> None:
    async with cross_encoder(cross_encoder_folder) as reranker:
        await reranker.scores("word", ["word " * 60])
        error = await refusal(reranker.scores("word", ["word", "word " * 61]))
        assert isinstance(error, InvalidInput)
        assert "65 tokens, more than the 64" in error.message


async def test_models_that_are_no_rerankers_are_refused(
    cross_encoder_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=r"reranker .* is not a folder"):
        load_cross_encoder(str(tmp_path / "none"), device="cpu", batch_size=4)
    config = BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1)
    config.num_labels = 3
    PreTrainedTokenizerFast.from_pretrained(cross_encoder_folder).save_pretrained(tmp_path / "m")
    BertForSequenceClassification(config).save_pretrained(tmp_path / "m")
    with pytest.raises(InvalidInput, match="gives 3 scores"):
        load_cross_encoder(str(tmp_path / "m"), device="cpu", batch_size=4)
    (tmp_path / "m" / "model.safetensors").write_bytes(b"none")
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        load_cross_encoder(str(tmp_path / "m"), device="cpu", batch_size=4)


async def test_a_tei_reranker_gives_the_texts_scores_in_their_order() -> None:
    texts = [document.text for document in DOCUMENTS]
    async with (
        running(kind="reranker", model_id="org/reranker") as fake,
        tei_reranker(fake) as reranker,
    ):
        fake.faults = [overloaded(), half, status(503)]
        scores = await reranker.scores("The Birch 7", texts)
        assert scores == [overlap("The Birch 7", text) for text in texts]
        for asked in fake.asked:
            if asked.path == "/rerank":
                assert asked.body["truncate"] is False
                assert asked.body["raw_scores"] is True
                assert len(asked.body["texts"]) <= fake.max_client_batch_size
        assert reranker.identity.id == "org/reranker"
        error = await refusal(reranker.scores("word " * 70, texts))
        assert isinstance(error, InvalidInput)
        assert "must have less than 64 tokens" in error.message


async def test_a_tei_server_with_an_embedder_is_no_reranker() -> None:
    async with running() as fake:
        with pytest.raises(InvalidInput, match="a model for embedding, not for reranker"):
            async with tei_reranker(fake):
                pass


@asynccontextmanager
async def retriever(
    folder: Path, **settings: object
) -> AsyncIterator[retriever_pb2_grpc.RetrieverServiceAsyncStub]:
    """A retriever with a frozen corpus."""
    chosen = RetrieverSettings(store_dir=folder, torch_threads=1, **settings)
    async with (
        main.build(chosen) as service,
        serving(service) as target,
        connect(target, services=[]) as channel,  # retries nothing
    ):
        stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
        await stub.CreateCorpus(pb.CreateCorpusRequest(name="birches"))
        message = pb.IngestDocumentsRequest(corpus="birches", documents=DOCUMENTS)
        await stub.IngestDocuments(iter([message]))
        await stub.FreezeCorpus(pb.FreezeCorpusRequest(name="birches"))
        yield stub


def search(k: int = 3, **more: object) -> pb.SearchRequest:
    return pb.SearchRequest(corpus="birches", query="The Birch 7", k=k, **more)


async def test_a_search_with_a_cross_encoder_has_its_order_and_both_scores(
    cross_encoder_folder: Path, tmp_path: Path
) -> None:
    async with retriever(tmp_path, reranker=str(cross_encoder_folder)) as stub:
        plain = await stub.Search(search(k=30))
        assert not plain.HasField("reranker")
        assert not any(passage.HasField("first_score") for passage in plain.passages)
        first = {passage.id: passage.score for passage in plain.passages}

        deep = await stub.Search(search(k=3, rerank=pb.Rerank(depth=30)))
        assert {time.stage for time in deep.stage_times} == {"embed", "search", "fuse", "rerank"}
        assert deep.reranker.id == "tiny-cross-encoder"
        assert [passage.score for passage in deep.passages] == sorted(
            (passage.score for passage in deep.passages), reverse=True
        )
        async with cross_encoder(cross_encoder_folder) as reranker:
            texts = {passage.id: passage.text for passage in plain.passages}
            scores = await reranker.scores("The Birch 7", list(texts.values()))
        best = sorted(zip(texts, scores, strict=True), key=lambda pair: -pair[1])[:3]
        assert [passage.id for passage in deep.passages] == [id_ for id_, _ in best]
        assert [passage.score for passage in deep.passages] == pytest.approx(
            [score for _, score in best], abs=1e-4
        )
        whole = {passage.id: passage.first_score for passage in deep.passages}
        assert whole == {id_: first[id_] for id_ in whole}

        shallow = await stub.Search(search(k=3, rerank=pb.Rerank(depth=3)))
        assert {passage.id for passage in shallow.passages} == {
            passage.id for passage in plain.passages[:3]
        }
        keyword = search(k=3, mode=pb.SEARCH_MODE_KEYWORD, rerank=pb.Rerank())
        assert (await stub.Search(keyword)).passages[0].first_score > 0


async def test_a_search_with_a_tei_reranker_brings_the_passage_to_the_top(tmp_path: Path) -> None:
    async with (
        running(kind="reranker") as fake,
        retriever(tmp_path, reranker="tei", reranker_url=fake.url) as stub,
    ):
        found = await stub.Search(search(k=1, rerank=pb.Rerank(depth=30)))
        assert found.passages[0].document_id == "doc-7"
        assert found.passages[0].score == 1.0
        for expected in (fake.model_id, found.reranker.digest, ""):
            rerank = pb.Rerank(expected_reranker=expected)
            assert (await stub.Search(search(rerank=rerank))).reranker == found.reranker
        wrong = search(rerank=pb.Rerank(expected_reranker="org/other"))
        error = await refusal(stub.Search(wrong))
        assert isinstance(error, WrongState)
        assert "not the expected org/other" in error.message
        await fake.stop()
        error = await refusal(stub.Search(search(rerank=pb.Rerank()), timeout=1.5))
        assert isinstance(error, Unavailable)
        assert "does not answer" in error.message, "the reason, not the deadline"
        assert (await stub.Search(search())).passages, "a search without it goes on"


async def test_what_cannot_be_reranked_is_refused(tmp_path: Path) -> None:
    async with retriever(tmp_path) as stub:
        error = await refusal(stub.Search(search(rerank=pb.Rerank())))
        assert isinstance(error, WrongState)
        assert "start it with --reranker" in error.message
        for k, depth in ((5, 4), (5, 1001)):
            error = await refusal(stub.Search(search(k=k, rerank=pb.Rerank(depth=depth))))
            assert isinstance(error, InvalidInput)
            assert error.field == "rerank.depth"
