"""The embedder in process: identity, vectors, batches, and models that are not there."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tuneproof.servicekit.errors import InvalidInput, Unavailable
from tuneproof_retriever.corpus import Vectors
from tuneproof_retriever.embedders.model_folder import PACKAGED_MODEL, digest_of_model, find_model
from tuneproof_retriever.embedders.query_batches import QueryBatches
from tuneproof_retriever.embedders.sentence_embedder import SentenceEmbedder, load_sentence_embedder

TEXTS = [
    "The antenna gain is nine decibels.",
    "Cats sleep most of the day. " * 9,
    "Aerials amplify; this one by 9 dB.",
]


async def test_vectors_have_length_one_keep_order_and_carry_meaning(
    embedder: SentenceEmbedder,
) -> None:
    vectors = await embedder.embed_passages(TEXTS)
    assert vectors.shape == (3, embedder.identity.dimension)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1] + 0.2
    alone = await embedder.embed_passages(TEXTS[1:2])
    assert alone[0] == pytest.approx(vectors[1], abs=1e-5)


async def test_many_texts_come_back_in_their_order(embedder: SentenceEmbedder) -> None:
    texts = [f"number {number} " + "word " * (number * 7 % 5) for number in range(40)]
    together = await embedder.embed_passages(texts)
    for number in (0, 17, 39):
        alone = await embedder.embed_query(texts[number])
        assert int(np.argmax(together @ alone)) == number
    assert (await embedder.embed_passages([])).shape == (0, embedder.identity.dimension)


async def test_the_identity_leaves_room_for_special_tokens(embedder: SentenceEmbedder) -> None:
    assert embedder.identity.id == PACKAGED_MODEL
    assert embedder.identity.dimension == 384
    assert embedder.identity.max_tokens == 254
    text = "word " * 1000
    assert len((await embedder.offsets([text]))[0]) == 1000, "no truncation"


async def test_queries_that_come_together_are_embedded_together() -> None:
    batches: list[list[str]] = []
    gate = asyncio.Event()

    async def embed(texts: list[str]) -> Vectors:
        batches.append(texts)
        await gate.wait()
        return np.asarray([[float(text)] for text in texts], dtype=np.float32)

    queries = QueryBatches(embed, size=3)
    first = asyncio.create_task(queries.embed("0"))
    while not batches:
        await asyncio.sleep(0)
    rest = [asyncio.create_task(queries.embed(str(number))) for number in range(1, 6)]
    await asyncio.sleep(0)
    rest[1].cancel()
    gate.set()
    assert float((await first)[0]) == 0
    answers = await asyncio.gather(*rest, return_exceptions=True)
    assert isinstance(answers[1], asyncio.CancelledError)
    assert [float(answers[place][0]) for place in (0, 2, 3, 4)] == [1, 3, 4, 5]
    assert batches[0] == ["0"]
    assert [text for batch in batches for text in batch] == ["0", "1", "3", "4", "5"]
    assert max(map(len, batches)) <= 3
    assert len(batches) == 3


async def test_a_failed_batch_fails_its_queries_and_no_later_one() -> None:
    async def embed(texts: list[str]) -> Vectors:
        if "bad" in texts:
            raise Unavailable("the model is away")
        return np.ones((len(texts), 1), dtype=np.float32)

    queries = QueryBatches(embed, size=8)
    with pytest.raises(Unavailable, match="away"):
        await queries.embed("bad")
    assert (await queries.embed("good")).tolist() == [1.0]


async def test_the_digest_is_of_what_is_loaded_not_of_where_it_lies(
    embedder: SentenceEmbedder, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(find_model(PACKAGED_MODEL), folder)
    assert digest_of_model(folder) == embedder.identity.digest
    (folder / "README.md").write_text("other words")
    assert digest_of_model(folder) == embedder.identity.digest
    settings = folder / "sentence_bert_config.json"
    settings.write_text(settings.read_text().replace("256", "128"))
    assert digest_of_model(folder) != embedder.identity.digest
    changed = load_sentence_embedder(str(folder), device="cpu", threads=0, batch_size=8)
    assert changed.identity.id == "copy"
    assert changed.identity.max_tokens == 126
    await changed.close()


async def test_vectors_of_a_model_that_does_not_normalise_have_length_one(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    shutil.copytree(find_model(PACKAGED_MODEL), folder)
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:2]))
    raw = load_sentence_embedder(str(folder), device="cpu", threads=0, batch_size=8)
    vectors = await raw.embed_passages(TEXTS)
    await raw.close()
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(InvalidInput, match="safetensors"):
        find_model(str(tmp_path))


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not a folder"):
        find_model(str(tmp_path / "missing"))


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    shutil.copytree(find_model(PACKAGED_MODEL), tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"none")
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        load_sentence_embedder(str(tmp_path / "m"), device="cpu", threads=0, batch_size=8)


def test_a_model_id_without_network_is_told_apart_from_a_wrong_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="set --embedder to a folder"):
        find_model("somebody/some-model-that-is-not-cached")
    with pytest.raises(InvalidInput, match="neither a folder nor a model"):
        find_model("not a model id/at all/three")
