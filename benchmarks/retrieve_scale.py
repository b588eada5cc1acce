"""Large corpora: memory, bytes, speed and recall of both stores.

    make verify-retrieve

The vectors are precomputed: unit vectors of MiniLM's length around random centres, which a server
with OpenAI's protocol in this process hands to the retriever, so that the whole service works as it
does with a model. Synthetic: recall on real embeddings differs.

A million passages go into LanceDB, of which freezing builds an approximate index; a hundred
thousand into Weaviate, once with whole vectors and once quantised to 8 bits. For each: passages a
second until they are stored, seconds of freezing, the retriever's and Weaviate's largest resident
memory, bytes on disk by passage, the median and 99th percentile of 200 dense searches one after the
other, and recall@10 against exact search.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
from aiohttp import web
from service import WEAVIATE, retriever, weaviate

from tuneproof.data.items import Document
from tuneproof.sdk import Chunking, RetrieverClient
from tuneproof_retriever.embedders.model_folder import PACKAGED_MODEL, find_model

Vectors = npt.NDArray[np.float32]

DIMENSION = 384
CENTRES = 2000
SPREAD = 0.7
QUERIES = 200
K = 10
CORPUS = "large"
WORDS = [f"{first}{last}" for first in "bdfgklmnprst" for last in ("ale", "ire", "ona", "use")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lancedb", type=int, default=1_000_000, help="passages; 0: none")
    parser.add_argument("--weaviate", type=int, default=100_000, help="passages; 0: none")
    options = parser.parse_args()
    if min(options.lancedb, options.weaviate) < 0:
        parser.error("numbers of passages are not negative")
    print(json.dumps({"bench": "retrieve_scale", "results": asyncio.run(_measure(options))}))


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if options.lancedb:
            world = make_world(options.lancedb)
            async with _embedding(world) as model:
                flags = (*model, f"--store-dir={folder / 'lancedb'}")
                results["lancedb"] = await _run(world, folder, flags, folder / "lancedb")
        if options.weaviate and WEAVIATE.is_file():
            world = make_world(options.weaviate)
            for name, more in (("weaviate", ()), ("weaviate_rq8", ("--weaviate-quantised",))):
                data = folder / name
                async with _embedding(world) as model:
                    with weaviate(data) as running:
                        flags = (*model, *running.flags, *more)
                        results[name] = await _run(world, folder, flags, data, running.pid)
        elif options.weaviate:
            _tell("no Weaviate server: set TUNEPROOF_TOOLS")
    return results


@dataclass(frozen=True)
class World:
    """Vectors of passages and of queries, by number."""

    passages: Vectors
    queries: Vectors
    nearest: npt.NDArray[np.int64]
    """The K nearest passages of each query, by exact search, in no order."""

    def vector(self, text: str) -> npt.NDArray[np.float32]:
        """What stands for the model: the vector of a text that begins with its kind and number."""
        kind, number = (*text.split(), "0", "0")[:2]  # A retriever also asks for a word of its own.
        rows = self.queries if kind == "query" else self.passages
        return rows[int(number) % len(rows)]


def make_world(count: int) -> World:
    """So many passages, and queries that are near to some of them."""
    rng = np.random.default_rng(0)
    centres = _unit(rng.standard_normal((CENTRES, DIMENSION), np.float32))
    passages = np.empty((count, DIMENSION), np.float32)
    for first in range(0, count, 50_000):
        some = passages[first : first + 50_000]
        noise = _unit(rng.standard_normal(some.shape, np.float32))
        some[:] = _unit(centres[rng.integers(CENTRES, size=len(some))] + SPREAD * noise)
    near = passages[rng.integers(count, size=QUERIES)]
    noise = _unit(rng.standard_normal(near.shape, np.float32))
    queries = _unit(near + SPREAD * noise)
    nearest = np.argpartition(queries @ passages.T, -K, axis=1)[:, -K:]
    return World(passages, queries, nearest)


def _unit(rows: Vectors) -> Vectors:
    unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


@asynccontextmanager
async def _embedding(world: World) -> AsyncIterator[tuple[str, ...]]:
    """The server of the vectors; gives the retriever's flags for it."""

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "precomputed"}]})

    async def embeddings(request: web.Request) -> web.Response:
        texts = (await request.json())["input"]
        rows = [base64.b64encode(world.vector(text).tobytes()).decode() for text in texts]
        data = [{"index": place, "embedding": row} for place, row in enumerate(rows)]
        return web.json_response({"object": "list", "data": data, "model": "precomputed"})

    app = web.Application(client_max_size=2**26)
    app.add_routes([web.get("/v1/models", models), web.post("/v1/embeddings", embeddings)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield (
            "--embedder=openai",
            f"--embedder-url=http://{host}:{port}/v1",
            f"--embedder-tokenizer={find_model(PACKAGED_MODEL, '')}",
            "--embedder-max-tokens=256",
            "--embed-batch=256",
        )
    finally:
        await runner.cleanup()


async def _run(
    world: World, folder: Path, flags: Sequence[str], data: Path, *processes: int
) -> dict[str, Any]:
    """Fills, freezes and searches one corpus.

    Args:
        data: where the store's files lie.
        processes: whose memory counts beside the retriever's.
    """
    count = len(world.passages)
    with ExitStack() as running:
        # This loop serves the vectors that the retriever asks for when it starts.
        ours_at = await asyncio.to_thread(running.enter_context, retriever(folder, *flags))
        ours = running.enter_context(_Peak(ours_at["pid"]))
        theirs = running.enter_context(_Peak(*processes))
        async with RetrieverClient(ours_at["grpc"]) as client:
            await client.ensure_corpus(CORPUS, Chunking(max_tokens=128))
            start = time.perf_counter()
            await client.ingest(CORPUS, _documents(count), on_progress=_progress(count))
            stored = time.perf_counter()
            corpus = await client.freeze(CORPUS, timeout=7200)
            frozen = time.perf_counter()
            if corpus.passages != count:
                sys.exit(f"{corpus.passages} passages, not {count}")
            seconds, hits = [], 0
            for number, nearest in enumerate(world.nearest):
                begin = time.perf_counter()
                found = await client.search(CORPUS, f"query {number}", k=K, mode="dense")
                seconds.append(time.perf_counter() - begin)
                hits += len({int(each.document_id) for each in found} & set(nearest.tolist()))
        size = _bytes_under(data)
    result = {
        "passages": count,
        "stored_per_s": round(count / (stored - start)),
        "freeze_s": round(frozen - stored, 1),
        "retriever_peak_mb": round(ours() / 1e6),
        "store_peak_mb": round(theirs() / 1e6),
        "disk_bytes_per_passage": round(size / count),
        "dense_p50_ms": round(median(seconds) * 1e3, 2),
        "dense_p99_ms": round(quantiles(seconds, n=100)[98] * 1e3, 2),
        "recall_at_10": round(hits / (K * QUERIES), 4),
    }
    _tell(json.dumps(result))
    return result


def _documents(count: int) -> Iterator[Document]:
    rng = random.Random(0)
    for number in range(count):
        text = " ".join(["passage", str(number), *rng.choices(WORDS, k=12)])
        yield Document(str(number), text)


def _progress(count: int) -> Callable[[int, int | None], None]:
    start, told = time.perf_counter(), 0.0

    def tell(done: int, _: int | None) -> None:
        nonlocal told
        now = time.perf_counter()
        if now - told > 10.0:
            told, rate = now, done / (now - start)
            _tell(f"{done:,} of {count:,}, {rate:,.0f}/s, about {(count - done) / rate:.0f} s left")

    return tell


def _bytes_under(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class _Peak(threading.Thread):
    """Watches the resident memory of processes, their sum."""

    def __init__(self, *pids: int) -> None:
        super().__init__(daemon=True)
        self._processes = [psutil.Process(pid) for pid in pids]
        self._ended = threading.Event()
        self.bytes = 0

    def run(self) -> None:
        while not self._ended.wait(0.5):
            self.bytes = max(self.bytes, sum(one.memory_info().rss for one in self._processes))

    def __enter__(self) -> Callable[[], int]:
        self.start()
        return lambda: self.bytes

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
