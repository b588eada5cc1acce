"""`tuneproof corpus eval`: how well corpora are searched, side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from tuneproof.cli.asking import AskedRetriever
from tuneproof.cli.console import ExitCode, err, out, say
from tuneproof.cli.corpus.commands import chunking_text, ingest, json_of
from tuneproof.cli.corpus.options import AlphaOption, Mode, RerankOption
from tuneproof.cli.options import takes_options
from tuneproof.cli.progress import progress_on
from tuneproof.corpora.topics import Collection, Topic, open_collection
from tuneproof.data.reading.documents import Batch, survey
from tuneproof.data.reading.records import Mistake, listed
from tuneproof.sdk import Chunking, CorpusInfo, Passage, Rerank, RetrieverClient
from tuneproof.servicekit.digests import sha256_of_json, sha256_of_json_list
from tuneproof.servicekit.errors import AlreadyExists, InvalidInput, TuneproofError

_CHUNKING = re.compile(r"(tokens|sentences|structure):(\d{1,6})(?::(\d{1,6}))?")
_DEFAULT_CHUNKING = ("tokens:200",)
_EMBEDDERS = 16
"""Corpora of the same documents and chunking that one retriever may hold."""


@dataclass(frozen=True, eq=False)
class _System:
    """What is compared: a corpus, and how it is searched."""

    corpus: CorpusInfo
    mode: str
    rerank: Rerank | None
    label: str


@takes_options
def eval_command(
    asked: AskedRetriever,
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Questions with their evidence: a BEIR folder, BioASQ golden files (.json), or"
            " JSON Lines."
        ),
    ],
    *,
    corpus: Annotated[
        list[str] | None, typer.Option(help="A frozen corpus to search; repeatable.")
    ] = None,
    chunking: Annotated[
        list[str] | None,
        typer.Option(
            help="BY:MAX_TOKENS[:OVERLAP_TOKENS]: makes a corpus of the source's own documents,"
            " and finds it again the next time; repeatable. BY is tokens, sentences or structure."
        ),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(help="hybrid, dense or keyword; repeatable; by default all three."),
    ] = None,
    k: Annotated[
        list[int] | None,
        typer.Option("-k", "--k", min=1, max=1000, help="Depth of success and recall; repeatable."),
    ] = None,
    alpha: AlphaOption = 0.5,
    rerank: RerankOption = None,
    split: Annotated[str, typer.Option(help="Split of a BEIR folder.")] = "test",
) -> None:
    """Measure how well search finds the evidence: success, recall, reciprocal rank, nDCG.

    Compares every corpus and chunking in every mode with the first one, question by question. The
    first default is tokens:200 by hybrid search. With --rerank each mode is measured without and
    with the retriever's reranker.

    Exits with 3 when a search failed; the question then counts for no configuration.

    Examples:

      tuneproof corpus eval 12B1_golden.json --chunking tokens:200 --chunking sentences:200

      tuneproof corpus eval scifact/ --mode hybrid --mode keyword -k 5 -k 20 --json

      tuneproof corpus eval questions.jsonl --corpus manual
    """
    collection = open_collection(sources, split=split)
    topics = [topic for topic in collection.topics if topic.evidence]
    if not topics:
        raise InvalidInput(f"no question of {collection.name} has evidence")
    wanted = [] if corpus and not chunking else list(chunking or _DEFAULT_CHUNKING)
    chunkings = {text: _chunking(text) for text in wanted}
    if chunkings and collection.documents is None:
        raise InvalidInput(f"{collection.name} is without documents: name a corpus with --corpus")
    modes, ks = mode or list(get_args(Mode)), sorted(set(k or [5, 10]))
    if unknown := [each for each in modes if each not in get_args(Mode)]:
        raise InvalidInput(f"--mode is {unknown[0]!r}; it is hybrid, dense or keyword")
    failed: dict[str, str] = {}
    depth = max(10, *ks)
    ways = [None] if rerank is None else [None, Rerank(rerank and max(rerank, depth))]

    async def work(client: RetrieverClient) -> dict[_System, dict[str, list[Passage]]]:
        corpora = {name: await client.get(name) for name in dict.fromkeys(corpus or ())}
        if chunkings:
            batch = _batch(collection)
            labels = {"collection": collection.name, "documents": _digest_of(batch)}
            for text, each in chunkings.items():
                corpora[text] = await _ensure(client, labels, batch, each)
        found = {}
        for (name, one), way, again in product(corpora.items(), dict.fromkeys(modes), ways):
            system = _System(one, way, again, f"{name} {way}{' reranked' if again else ''}")
            found[system] = await _search(
                client, system, topics, depth=depth, alpha=alpha, failed=failed
            )
        return found

    found = asked.run(work)
    _report(asked, collection, topics, found, ks=ks, failed=failed)
    if failed:
        say(f"{len(failed)} questions failed:\n{listed(list(failed.values()))}")
        raise SystemExit(ExitCode.PARTLY)


def _report(
    asked: AskedRetriever,
    collection: Collection,
    topics: Sequence[Topic],
    found: dict[_System, dict[str, list[Passage]]],
    *,
    ks: Sequence[int],
    failed: dict[str, str],
) -> None:
    # scipy takes as long to load as everything else.
    from tuneproof.cli.corpus.chart import show  # noqa: PLC0415
    from tuneproof.corpora.comparing import compare  # noqa: PLC0415
    from tuneproof.corpora.measuring import measure  # noqa: PLC0415

    left = [topic for topic in topics if topic.id not in failed]
    if not left:
        raise InvalidInput(f"every search failed:\n{listed(list(failed.values()))}")
    measured = {system.label: measure(left, passages, ks) for system, passages in found.items()}
    compared = compare(left, measured)
    systems = {system.label: system for system in found}
    notes = list(collection.notes)
    if without := len(collection.topics) - len(topics):
        notes.append(f"{without} questions are without evidence and do not count.")
    value: dict[str, Any] = {
        "collection": collection.name,
        **asdict(compared),
        "failed": failed,
        "notes": notes,
    }
    for side in value["sides"]:
        system = systems[side["name"]]
        side |= {
            "mode": system.mode,
            "rerank": system.rerank and asdict(system.rerank),
            "corpus": json_of(system.corpus),
        }

    def tell() -> None:
        out.print(
            f"{collection.name}: {compared.topics} questions in {compared.clusters} clusters;"
            f" mean [{compared.confidence:.0%} interval]\n",
            markup=False,
        )
        show(compared)
        for note in notes:
            out.print(f"\n{note}", markup=False)

    asked.give(value, tell)


async def _search(
    client: RetrieverClient,
    system: _System,
    topics: Sequence[Topic],
    *,
    depth: int,
    alpha: float,
    failed: dict[str, str],
) -> dict[str, list[Passage]]:
    found: dict[str, list[Passage]] = {}
    with progress_on(err).stage(system.label, len(topics), 0) as stage:
        outcomes = client.search_many(
            system.corpus.name,
            {topic.id: topic.query for topic in topics},
            k=depth,
            mode=system.mode,
            alpha=alpha,
            expected_digest=system.corpus.digest,
            rerank=system.rerank,
        )
        async for id_, passages in outcomes:
            if isinstance(passages, TuneproofError):
                failed[id_] = f"{id_}, {system.label}: {passages.message}"
            else:
                found[id_] = passages
            stage.advance()
    return found


def _digest_of(batch: Batch) -> str:
    """Over all documents, of which one is in memory at a time."""
    return sha256_of_json_list(
        [each.id, each.title, each.text, dict(each.metadata)] for each in batch
    )


async def _ensure(
    client: RetrieverClient, labels: Mapping[str, str], batch: Batch, chunking: Chunking
) -> CorpusInfo:
    """A frozen corpus of a collection's documents; one that was made before is found again.

    Args:
        labels: what tells the documents from others.
    """
    corpus = await _own_corpus(client, chunking, labels)
    if corpus.frozen:
        return corpus
    name = corpus.name
    say(f"{chunking_text(chunking)}: making corpus {name}")
    result = await ingest(client, name, batch)
    if result.rejected:
        refused = [f"{each.id}: {each.error.message}" for each in result.rejected]
        raise InvalidInput(
            f"the retriever refused {result.rejected_count} documents:\n{listed(refused)}"
        )
    return await client.freeze(name)


async def _own_corpus(
    client: RetrieverClient, chunking: Chunking, labels: Mapping[str, str]
) -> CorpusInfo:
    """The corpus of these documents, this chunking, and the embedder that the retriever has now."""
    for number in range(_EMBEDDERS):
        # The first name holds no number: it is that of corpora which exist.
        parts = [labels["documents"], asdict(chunking), *([number] if number else [])]
        name = f"eval-{sha256_of_json(parts).removeprefix('sha256:')[:16]}"
        try:
            return await client.ensure_corpus(name, chunking, labels)
        except AlreadyExists:
            # Made by another embedder, or for another name of the collection.
            continue
    raise AlreadyExists(
        f"the retriever holds {_EMBEDDERS} corpora of {labels['collection']} by other embedders or"
        " under other names; delete one: `tuneproof corpus list` shows them"
    )


def _batch(collection: Collection) -> Batch:
    def refuse(mistake: Mistake) -> None:
        raise InvalidInput(str(mistake))

    batch = survey([collection.documents] if collection.documents else [], refuse)
    if batch.mistakes:
        raise InvalidInput(
            f"the documents of {collection.name} cannot be used:\n{listed(batch.mistakes)}"
        )
    return batch


def _chunking(text: str) -> Chunking:
    match = _CHUNKING.fullmatch(text)
    if match is None:
        raise InvalidInput(
            f"--chunking is {text!r}; it is BY:MAX_TOKENS[:OVERLAP_TOKENS], as in tokens:200:20,"
            " where BY is tokens, sentences or structure"
        )
    return Chunking(int(match[2]), int(match[3] or 0), match[1])
