"""A Weaviate server that is killed, frozen or locked, and what a retriever makes of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from tuneproof.servicekit.errors import TuneproofError, Unavailable, WrongState
from tuneproof_retriever.corpus import PreparedDocument
from tuneproof_retriever.searching import SearchMode
from tuneproof_retriever.stores.lance_store import LanceStore
from tuneproof_retriever.stores.weaviate_options import Server, WeaviateOptions
from tuneproof_retriever.stores.weaviate_store import WeaviateStore, open_weaviate_store

from .house import CHUNKING, HashHouse, documents
from .weaviate_server import WeaviateServer, new_server

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

DOCUMENTS = documents(1200)
BATCH = 100


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WeaviateServer]:
    started = new_server(tmp_path / "weaviate")
    started.start()
    yield started
    started.stop()


@pytest.fixture
async def store(server: WeaviateServer) -> AsyncIterator[WeaviateStore]:
    where = Server(server.url, server.grpc, search_seconds=5, write_seconds=20)
    async with open_weaviate_store(WeaviateOptions(where)) as opened:
        yield opened


async def kill_and_start(server: WeaviateServer, after: float) -> None:
    await asyncio.sleep(after)
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


@pytest.mark.parametrize("moment", [1, 6, 12, 13])
async def test_killed_in_mid_import_every_passage_is_there_once_and_found(
    server: WeaviateServer,
    store: WeaviateStore,
    lance_store: LanceStore,
    moment: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the first, a middle and the last batch; and between the last one and freezing."""
    house = HashHouse(store, write_passages=BATCH, proof_passages=10)
    await house.corpora.create("c", CHUNKING, {})
    write, writes = store.add, 0
    killing: list[asyncio.Task[None]] = []

    async def add(name: str, batch: Sequence[PreparedDocument]) -> None:
        nonlocal writes
        writes += 1
        if writes == moment:
            killing.append(asyncio.create_task(kill_and_start(server, 0.02)))
        await write(name, batch)

    monkeypatch.setattr(store, "add", add)
    for _ in range(20):
        try:
            await house.ingest("c", DOCUMENTS)
            break
        except Unavailable:
            await asyncio.sleep(1)
    if not killing:
        killing.append(asyncio.create_task(kill_and_start(server, 0)))
    await killing[0]
    report = await house.ingest("c", DOCUMENTS)
    assert report.documents_unchanged == len(DOCUMENTS)
    frozen = await house.corpora.freeze("c")
    print(f"moment {moment}: {frozen.proof}")
    assert frozen.proof is not None
    assert frozen.proof.passages_checked == len(DOCUMENTS), "an outage makes the proof whole"
    whole = await HashHouse(lance_store).make("c", DOCUMENTS)
    assert frozen.digest == whole.digest, "every passage is there once, as it was sent"
    assert await not_found(house, store) == {}


async def not_found(house: HashHouse, store: WeaviateStore) -> dict[str, list[str]]:
    """What is found instead of documents that are not found by their vector and their own word."""
    wrong = {}
    for document in DOCUMENTS:
        vector = await house.embedder.embed_query(document.text)
        near = await store.dense("c", vector, 1, {}, whole=True)
        named = await store.keyword("c", document.text.split()[1], 2, {}, whole=True)
        found = [hit.passage.document_id for hit in (*near, *named)]
        if found != [document.id] * 2:
            wrong[document.id] = found
    return wrong


async def test_cut_off_calls_fail_in_time_and_it_recovers_by_itself(
    server: WeaviateServer, store: WeaviateStore
) -> None:
    """A stopped process stands for a cut link: connections stay, and nothing answers."""
    house = HashHouse(store)
    await house.make("c", documents(50))
    await store.check_ready()
    process = int((server.folder / "weaviate.pid").read_text())
    os.kill(process, signal.SIGSTOP)
    try:
        for call in (house.find("c", "own00001"), store.check_ready()):
            async with asyncio.timeout(12):
                with pytest.raises(Unavailable):
                    await call
        async with asyncio.timeout(8):
            while not store.outages:
                await asyncio.sleep(0.1)
        for mode in SearchMode:
            async with asyncio.timeout(4):  # from now on without the wait for a search
                with pytest.raises(Unavailable, match="not ready"):
                    await house.find("c", "own00001", mode)
    finally:
        os.kill(process, signal.SIGCONT)
    await until_ready(store)
    assert (await house.find("c", "own00001"))[0] == "doc-1"


async def test_a_server_that_starts_late_or_again_is_found(server: WeaviateServer) -> None:
    server.stop()
    where = Server(server.url, server.grpc, search_seconds=5)
    async with open_weaviate_store(WeaviateOptions(where)) as store:
        with pytest.raises(Unavailable):
            await store.check_ready()
        await asyncio.to_thread(server.start)
        await until_ready(store)
        house = HashHouse(store)
        await house.make("c", documents(50))
        await asyncio.to_thread(server.stop)
        with pytest.raises(Unavailable):
            await store.check_ready()
        await asyncio.to_thread(server.start)
        await until_ready(store)
        assert (await house.find("c", "own00001"))[0] == "doc-1"


async def test_a_key_is_needed_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    server = new_server(tmp_path / "weaviate", api_key="right")
    server.start()
    try:
        for key in ("wrong", ""):
            options = WeaviateOptions(Server(server.url, server.grpc, key))
            async with open_weaviate_store(options) as store:
                for call in (store.check_ready(), store.names()):
                    with pytest.raises(WrongState, match="API key") as told:
                        await call
                    assert "wrong" not in told.value.message
        options = WeaviateOptions(Server(server.url, server.grpc, "right"))
        async with open_weaviate_store(options) as store:
            await store.check_ready()
            await HashHouse(store).make("c", documents(5))
    finally:
        server.stop()


async def until_ready(store: WeaviateStore) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await store.check_ready()
            except TuneproofError:
                await asyncio.sleep(0.2)
            else:
                return
