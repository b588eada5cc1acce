"""The retriever as a process: start, kill, mistakes, foreign packages."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tuneproof.retriever.v1 import retriever_pb2 as pb
from tuneproof.retriever.v1 import retriever_pb2_grpc
from tuneproof.servicekit.client import connect, typed_errors, wait_ready
from tuneproof.servicekit.errors import Unavailable
from tuneproof.servicekit.testing import serving
from tuneproof_retriever.main import build
from tuneproof_retriever.settings import RetrieverSettings

pytestmark = pytest.mark.process

SERVICES = [pb.DESCRIPTOR.services_by_name["RetrieverService"]]
DOCUMENTS = [
    pb.Document(id=f"doc-{number}", text=f"Relay {number} holds {number} contacts. " * 12)
    for number in range(60)
]


async def announced(process: asyncio.subprocess.Process, file: Path) -> dict[str, str]:
    async with asyncio.timeout(150):
        while not file.exists():
            assert process.returncode is None, "the retriever ended"
            await asyncio.sleep(0.1)
    return json.loads(file.read_text())


async def start(folder: Path) -> tuple[asyncio.subprocess.Process, dict[str, str]]:
    file = folder / "announced.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tuneproof_retriever", "--store-dir", str(folder / "corpora")),
        *("--announce-file", str(file), "--write-passages", "4", "--torch-threads", "1"),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        return process, await announced(process, file)
    except BaseException:
        process.kill()
        await process.wait()
        raise


async def digest_of(stub: retriever_pb2_grpc.RetrieverServiceAsyncStub, name: str) -> pb.Corpus:
    chunking = pb.Chunking(max_tokens=40)
    await stub.CreateCorpus(pb.CreateCorpusRequest(name=name, chunking=chunking))
    await stub.IngestDocuments(
        pb.IngestDocumentsRequest(corpus=name, documents=DOCUMENTS[first : first + 10])
        for first in range(0, len(DOCUMENTS), 10)
    )
    return (await stub.FreezeCorpus(pb.FreezeCorpusRequest(name=name))).corpus


@pytest.mark.timeout(300)
@pytest.mark.slow
async def test_killed_in_mid_ingest_and_sent_again_gives_the_same_corpus(tmp_path: Path) -> None:
    process, addresses = await start(tmp_path)
    try:
        await wait_ready(addresses["health"], timeout=60)
        async with connect(addresses["grpc"], services=SERVICES) as channel:
            held = await kill_in_mid_ingest(
                process, retriever_pb2_grpc.RetrieverServiceStub(channel)
            )
    finally:
        if process.returncode is None:
            process.kill()
        assert await process.wait() == -signal.SIGKILL
    assert held > 0
    settings = RetrieverSettings(store_dir=tmp_path / "corpora", torch_threads=1)
    async with (
        build(settings) as service,
        serving(service) as target,
        connect(target, services=SERVICES) as channel,
    ):
        stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
        left = (await stub.GetCorpus(pb.GetCorpusRequest(name="killed"))).corpus
        assert held <= left.document_count < len(DOCUMENTS)
        killed = await digest_of(stub, "killed")
        whole = await digest_of(stub, "whole")
        assert killed.digest == whole.digest
        assert killed.passage_count == whole.passage_count > len(DOCUMENTS)
        assert killed.document_count == len(DOCUMENTS)
        answers = []
        for name in ("killed", "whole"):
            reply = await stub.Search(
                pb.SearchRequest(corpus=name, query="contacts of relay 31", k=12)
            )
            answers.append([(passage.id, passage.score) for passage in reply.passages])
        assert answers[0] == answers[1]


async def kill_in_mid_ingest(
    process: asyncio.subprocess.Process, stub: retriever_pb2_grpc.RetrieverServiceAsyncStub
) -> int:
    """Kills the retriever once it holds documents; how many it said it had."""
    chunking = pb.Chunking(max_tokens=40)
    await stub.CreateCorpus(pb.CreateCorpusRequest(name="killed", chunking=chunking))

    async def stream() -> AsyncIterator[pb.IngestDocumentsRequest]:
        for document in DOCUMENTS[:-1]:
            yield pb.IngestDocumentsRequest(corpus="killed", documents=[document])
        await asyncio.Event().wait()

    async def ingest() -> None:
        with typed_errors():
            await stub.IngestDocuments(stream())

    ingestion = asyncio.create_task(ingest())
    held = 0
    while held < 3:
        await asyncio.sleep(0.01)
        held = (await stub.GetCorpus(pb.GetCorpusRequest(name="killed"))).corpus.document_count
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(Unavailable):
        await ingestion
    return held


def test_mistakes_in_settings_are_listed_all_at_once() -> None:
    ended = run("--embed-batch", "0", "--ann-min-passages", "5", "--store", "paper")
    assert ended.returncode == 2
    for flag in ("--embed-batch", "--ann-min-passages", "--store"):
        assert flag in ended.stderr


def test_mistakes_in_what_says_where_weaviate_is_are_listed(tmp_path: Path) -> None:
    ended = run(
        "--weaviate-url", "weaviate:8080", "--weaviate-grpc", "weaviate", "--weaviate-prefix", "a b"
    )
    assert ended.returncode == 2
    for flag in ("--weaviate-url", "--weaviate-grpc", "--weaviate-prefix"):
        assert flag in ended.stderr
    ended = run("--weaviate-api-key", "secret", "--weaviate-api-key-file", str(tmp_path))
    assert ended.returncode == 2
    assert "leave one out" in ended.stderr
    assert "secret" not in ended.stderr
    ended = run("--store", "weaviate", "--weaviate-api-key-file", str(tmp_path / "none"))
    assert ended.returncode == 1
    assert "weaviate_api_key_file" in ended.stderr


def test_an_embedder_that_is_not_there_ends_the_start_with_a_line(tmp_path: Path) -> None:
    ended = run("--embedder", str(tmp_path / "none"), "--store-dir", str(tmp_path / "s"))
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("tuneproof-retriever: embedder")
    assert "is not a folder" in last


def test_the_service_imports_no_other_service_and_waits_with_heavy_libraries() -> None:
    code = (
        "import sys, tuneproof_retriever.main\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('tuneproof')))\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100
    ).stdout
    packages, ours = (line.split() for line in output.splitlines())
    foreign = {"vllm", "trl", "peft", "bitsandbytes", "openai", "torch", "lancedb", "transformers"}
    foreign |= {"weaviate", "httpx", "py_rust_stemmers"}
    assert not foreign & set(packages)
    allowed = (
        "tuneproof.servicekit",
        "tuneproof.retriever",
        "tuneproof_retriever",
    )
    assert [name for name in ours if not name.startswith(allowed) and name != "tuneproof"] == []


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tuneproof_retriever", *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
