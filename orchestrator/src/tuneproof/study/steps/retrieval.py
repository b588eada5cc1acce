"""Steps: the corpus, and what is found in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial

from tuneproof.sdk import Chunking, CorpusInfo, Rerank, RetrieverClient
from tuneproof.servicekit.errors import InvalidInput, TuneproofError, WrongState
from tuneproof.study.design.spec import RetrievalSpec
from tuneproof.study.progress import Progress, Stage
from tuneproof.study.services import Services
from tuneproof.study.state.codec import StoredPassage
from tuneproof.study.state.store import Task
from tuneproof.study.steps.chain import Chain
from tuneproof.study.steps.work import TaskOutcome, complete_stage

_SHOWN = 5
_KEPT = ("name", "digest", "documents", "passages", "embedder", "embedder_digest")
"""Of a corpus, in the state."""


async def make_corpus(chain: Chain, services: Services, progress: Progress) -> None:
    """Creates, fills and freezes the corpus, if a search is missing; else does nothing.

    Raises:
        InvalidInput: documents are refused.
        WrongState: the retriever has another corpus under the name.
    """
    made = chain.corpus_digest() is not None
    if made and not chain.state.missing(chain.retrieval_tasks().values()):
        return
    total = len(chain.plan.dataset.documents)
    with progress.stage("corpus", total, 0) as stage:
        corpus = await _ensure(chain, await services.retriever(), stage)
    output = {name: getattr(corpus, name) for name in _KEPT}
    task = chain.corpus_task()
    if chain.state.get(task.key) != output:
        chain.state.put(task, output)


async def search(chain: Chain, services: Services, progress: Progress) -> None:
    """Finds the passages of every item that the study uses."""
    await complete_stage(
        "retrieval",
        list(chain.retrieval_tasks().values()),
        partial(_search, chain, services),
        state=chain.state,
        services=services,
        progress=progress,
    )


async def _ensure(chain: Chain, retriever: RetrieverClient, stage: Stage) -> CorpusInfo:
    plan, key = chain.plan, chain.corpus_task().key
    name = f"{plan.dataset.name}-{key.removeprefix('sha256:')[:24]}"
    chunking = Chunking(**plan.spec.corpus.model_dump())
    labels = {"documents": plan.documents_digest}
    corpus = await retriever.ensure_corpus(name, chunking, labels)
    if not corpus.frozen:
        shown = 0

        def advance(done: int, _: int | None) -> None:
            nonlocal shown
            stage.advance(done - shown)
            shown = done

        result = await retriever.ingest(name, plan.dataset.documents, on_progress=advance)
        if result.rejected:
            listed = "\n".join(
                f"  {each.id}: {each.error.message}" for each in result.rejected[:_SHOWN]
            )
            raise InvalidInput(
                f"the retriever refused {result.rejected_count} of {len(plan.dataset.documents)}"
                f" documents of {plan.dataset.name}:\n{listed}"
            )
        stage.note("indexing")
        corpus = await retriever.freeze(name)
    if corpus.documents != len(plan.dataset.documents):
        raise WrongState(
            f"the retriever's corpus {name} holds {corpus.documents} documents, not the"
            f" {len(plan.dataset.documents)} of the data set: delete it and run the study again"
        )
    return corpus


async def _search(
    chain: Chain, services: Services, tasks: Sequence[Task]
) -> AsyncIterator[TaskOutcome]:
    retriever = await services.retriever()
    corpus: Mapping[str, str] = chain.state.get(chain.corpus_task().key) or {}
    settings = chain.plan.spec.retrieval
    found = retriever.search_many(
        corpus["name"],
        {task.key: task.inputs["query"] for task in tasks},
        k=settings.depth,
        mode=settings.mode,
        alpha=settings.alpha,
        expected_digest=corpus["digest"],
        rerank=_rerank(settings),
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
