"""The same corpus and real questions in both stores: the same passages in the same order."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tuneproof.servicekit.timing import Stages
from tuneproof_retriever.corpus import Chunking, Document
from tuneproof_retriever.searching import Query, SearchMode
from tuneproof_retriever.stores.lance_store import open_lance_store
from tuneproof_retriever.stores.protocol import VectorStore
from tuneproof_retriever.stores.weaviate_store import WeaviateStore

from .house import HashEmbedder, HashHouse

pytestmark = pytest.mark.slow

BIOASQ = Path(os.environ.get("TUNEPROOF_DATA", "")) / "bioasq" / "12B1_golden.json"


@pytest.mark.timeout(300)
async def test_both_stores_give_the_same_ten(tmp_path: Path, weaviate_store: WeaviateStore) -> None:
    if not BIOASQ.is_file():
        pytest.skip(f"{BIOASQ} is missing: set TUNEPROOF_DATA to a folder that holds it")
    questions = json.loads(BIOASQ.read_text())["questions"]
    texts = sorted({snippet["text"] for each in questions for snippet in each["snippets"]})
    passages = [Document(f"d{number}", text) for number, text in enumerate(texts)]
    async with open_lance_store(tmp_path / "lance", ann_min_passages=100_000) as lance_store:
        agreement = await agreement_of(lance_store, weaviate_store, questions, passages)
    assert min(agreement.values()) >= 0.95


async def agreement_of(
    lance_store: VectorStore,
    weaviate_store: VectorStore,
    questions: list[dict[str, Any]],
    passages: list[Document],
) -> dict[str, float]:
    """Share of the ten best that both stores give, by mode."""
    houses = [
        HashHouse(store, write_passages=500, embedder=HashEmbedder(5000))
        for store in (lance_store, weaviate_store)
    ]
    for house in houses:
        await house.corpora.create("bioasq", Chunking(1000), {})
        await house.ingest("bioasq", passages)
    digests = {(await house.corpora.freeze("bioasq")).digest for house in houses}
    assert len(digests) == 1
    agreement = {}
    for mode in SearchMode:
        shared = total = same = 0
        for question in questions:
            query = Query("bioasq", question["body"], mode, 10, 0.5)
            found = [
                [hit.passage.id for hit in (await house.searcher.search(query, Stages())).hits]
                for house in houses
            ]
            shared += len(set(found[0]) & set(found[1]))
            total += max(map(len, found))
            same += found[0] == found[1]
        agreement[mode.value] = shared / total
        print(f"{mode}: {shared / total:.3f} shared, {same} of {len(questions)} in the same order")
    return agreement
