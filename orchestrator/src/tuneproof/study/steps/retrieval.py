"""Steps: the corpora, and what is found in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import asdict
from functools import partial

from tuneproof.sdk import Chunking, CorpusInfo, IngestResult, Rerank, RetrieverClient
from tuneproof.servicekit.errors import InvalidInput, TuneproofError, WrongState
from tuneproof.study.design.spec import RetrievalSpec
from tuneproof.study.progress import Progress, Stage
from tuneproof.study.services import Services
from tuneproof.study.state.codec import StoredPassage
from tuneproof.study.state.store import Task
from tuneproof.study.steps.chain import Chain
from tuneproof.study.steps.searches import Corpus
from tuneproof.study.steps.tally import Tally
from tuneproof.study.steps.work import Lane, TaskOutcome

_SHOWN = 5
_KEPT = ("name", "digest", "documents", "passages", "embedder", "embedder_digest")
"""Of a corpus, in the state."""


async def make_corpora(chain: Chain, services: Services, progress: Progress) -> None:
    """Creates, fills and freezes each corpus of which a search is missing.

    Raises:
        InvalidInput: documents are refused.
        WrongState: the retriever has another corpus under the name.
    """
    searches = _searches(chain)
    for corpus in chain.searches.corpora():
        made = chain.state.get(corpus.task.key)
        waiting = [each for each in searches if made and each.inputs["corpus"] == made["digest"]]
        if made and not chain.state.missing(waiting):
            continue
        with progress.stage("corpus", len(corpus.documents), 0) as stage:
            info = await _ensure(chain, corpus, await services.retriever(), stage)
        output = {name: getattr(info, name) for name in _KEPT}
        if made != output:
            chain.state.put(corpus.task, output)


async def search(chain: Chain, services: Services, tally: Tally, *, in_flight: int) -> None:
    """Finds the passages of every item that the study uses, and the nearest pairs.

    Args:
        in_flight: most searches at once.
    """
    made = chain.state.outputs({corpus.name: corpus.task for corpus in chain.searches.corpora()})
    names = {str(each["digest"]): str(each["name"]) for each in made.values()}
    tally.try_again()
    places = Counter(each.key for each in _searches(chain))
    groups: dict[tuple[str, int], list[Task]] = {}
    for each in chain.state.missing(_searches(chain)):
        groups.setdefault((each.inputs["corpus"], each.inputs["k"]), []).append(each)
    for (digest, _), group in groups.items():
        ask = partial(_search, chain.plan.spec.retrieval, services, names[digest], in_flight)
        lane = Lane(ask, chain.state, recover=services.recover)
        for each in group:
            lane.add(each, tally, places=places[each.key])
        lane.close()
        await lane.run()


def _searches(chain: Chain) -> list[Task]:
    searches = chain.searches
    return [*searches.retrieval_tasks().values(), *searches.neighbour_tasks().values()]


async def _ensure(
    chain: Chain, wanted: Corpus, retriever: RetrieverClient, stage: Stage
) -> CorpusInfo:
    name, documents = wanted.name, wanted.documents
    chunking = Chunking(**chain.plan.spec.corpus.model_dump())
    corpus = await retriever.ensure_corpus(name, chunking, {"documents": wanted.digest})
    if not corpus.frozen:
        shown = 0

        def advance(done: int, _: int | None) -> None:
            nonlocal shown
            stage.advance(done - shown)
            shown = done

        try:
            result = await retriever.ingest(name, documents, on_progress=advance)
        except WrongState:
            # Another study of the same documents may have filled and frozen it meanwhile.
            if not (await retriever.get(name)).frozen:
                raise
        else:
            _refuse(result, name, len(documents))
        stage.note("indexing")
        corpus = await retriever.freeze(name)
    if corpus.documents != len(documents):
        raise WrongState(
            f"the retriever's corpus {name} holds {corpus.documents} documents, not the"
            f" {len(documents)} of the study: delete it and run the study again"
        )
    return corpus


def _refuse(result: IngestResult, name: str, documents: int) -> None:
    if result.rejected:
        listed = "\n".join(
            f"  {each.id}: {each.error.message}" for each in result.rejected[:_SHOWN]
        )
        raise InvalidInput(
            f"the retriever refused {result.rejected_count} of {documents} documents of"
            f" {name}:\n{listed}"
        )


async def _search(
    settings: RetrievalSpec,
    services: Services,
    corpus: str,
    in_flight: int,
    tasks: AsyncIterator[Task],
) -> AsyncGenerator[TaskOutcome, None]:
    """Searches in one corpus, all of one depth."""
    retriever = await services.retriever()
    first = await anext(tasks)

    async def queries() -> AsyncIterator[tuple[str, str]]:
        yield first.key, first.inputs["query"]
        async for each in tasks:
            yield each.key, each.inputs["query"]

    found = retriever.search_many(
        corpus,
        queries(),
        k=first.inputs["k"],
        mode=settings.mode,
        alpha=settings.alpha,
        expected_digest=first.inputs["corpus"],
        rerank=_rerank(settings) if "rerank" in first.inputs else None,
        in_flight=in_flight,
    )
    async for key, passages in found:
        if isinstance(passages, TuneproofError):
            yield key, passages
        else:
            stored = (StoredPassage(p.id, p.document_id, p.text, p.score) for p in passages)
            yield key, {"passages": [asdict(each) for each in stored]}


def _rerank(settings: RetrievalSpec) -> Rerank | None:
    if settings.rerank is None:
        return None
    return Rerank(settings.rerank_depth, settings.rerank.model)
