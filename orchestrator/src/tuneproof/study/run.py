"""A study from its first missing step to its last; nothing is done twice."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial

from tuneproof.servicekit.tracing import span
from tuneproof.study.progress import Progress
from tuneproof.study.services import Services
from tuneproof.study.status import digest_of, is_complete, last_stages_of, status_of
from tuneproof.study.steps.chain import Chain
from tuneproof.study.steps.forgetting import measure_forgetting
from tuneproof.study.steps.graph import Graph
from tuneproof.study.steps.importing import import_answers
from tuneproof.study.steps.retrieval import make_corpora, search
from tuneproof.study.steps.tally import (
    ANSWERS,
    CORPUS,
    FORGETTING,
    GRADES,
    JUDGE_CHECK,
    RETRIEVAL,
    TIMING,
    TRAINING,
    Tally,
)
from tuneproof.study.steps.timing import time_alone
from tuneproof.study.steps.work import persist

_NOTHING_DONE = 0.5
"""Seconds. A shorter stage found everything done, and does not count."""

_TIMED = {TRAINING: TRAINING, ANSWERS: ANSWERS, GRADES: GRADES, JUDGE_CHECK: "checks"}
"""Stages of the graph, with the names under which their seconds are kept."""


async def run_study(
    chain: Chain, services: Services, progress: Progress, *, artifacts: str, in_turn: bool = False
) -> None:
    """Does what is missing of the study. Where nothing is, it reaches no service.

    Args:
        artifacts: the artifact store that trainer and generator share: a folder, or a URL.
        in_turn: one stage after the other, where trainings, answers and grades could overlap.

    Raises:
        TuneproofError: what stops the whole study. A single item, training or adapter that fails
            does not: the state notes it, and the next run tries it again.
    """
    import_answers(chain)
    tallies = _count(chain, progress)
    if is_complete(tally.count for tally in tallies.values()):
        return
    try:
        with span("study run", {"tuneproof.study": chain.plan.spec.study}):
            with _stage(chain, "services"):
                await services.start()
            if not is_complete([tallies[RETRIEVAL].count]):
                await _search(chain, services, progress)
                import_answers(chain)
                tallies = _count(chain, progress)
            await _run_graph(chain, services, tallies, artifacts, in_turn=in_turn)
            await _run_last(chain, services, progress)
    except BaseExceptionGroup as group:
        raise _first_of(group) from None


async def _search(chain: Chain, services: Services, progress: Progress) -> None:
    with _stage(chain, CORPUS):
        await persist(partial(make_corpora, chain, services, progress), recover=services.recover)
    tally = _count(chain, progress)[RETRIEVAL]
    with _stage(chain, RETRIEVAL), closing(tally):
        await search(chain, services, tally, in_flight=chain.plan.spec.execution.searches)


async def _run_graph(
    chain: Chain,
    services: Services,
    tallies: Mapping[str, Tally],
    artifacts: str,
    *,
    in_turn: bool,
) -> None:
    try:
        await Graph(chain, services, tallies, artifacts=artifacts, in_turn=in_turn).run()
        chain.state.count([tally.count for tally in tallies.values()], digest_of(chain.plan.spec))
    finally:
        for tally in tallies.values():
            tally.close()
        _keep_times(chain, tallies)


async def _run_last(chain: Chain, services: Services, progress: Progress) -> None:
    """What wants the generator for itself, one after the other."""
    tallies = {count.stage: Tally(count, progress) for count in last_stages_of(chain)}
    chain.state.recount([tally.count for tally in tallies.values()])
    for stage, step in ((TIMING, time_alone), (FORGETTING, measure_forgetting)):
        if stage in tallies:
            with _stage(chain, stage), closing(tallies[stage]):
                await step(chain, services, tallies[stage])


def _count(chain: Chain, progress: Progress) -> dict[str, Tally]:
    """Tallies of all stages, from what is there; stored, so that a status need not count."""
    counts = status_of(chain)
    chain.state.count(counts, digest_of(chain.plan.spec))
    return {count.stage: Tally(count, progress) for count in counts}


def _keep_times(chain: Chain, tallies: Mapping[str, Tally]) -> None:
    names, study = chain.identities, chain.plan.spec.study
    for stage, name in _TIMED.items():
        if stage in tallies and (seconds := tallies[stage].seconds) > _NOTHING_DONE:
            chain.state.add_seconds(study, name, seconds)
    # A plan of another study uses these rates.
    for stage, model in ((ANSWERS, names.model_name), (GRADES, names.judge_name)):
        if fresh := tallies[stage].fresh:
            chain.state.add_rate(stage, model, tallies[stage].seconds, fresh)


@contextmanager
def _stage(chain: Chain, name: str) -> Iterator[None]:
    start = time.monotonic()
    try:
        with span(name):
            yield
    finally:
        seconds = time.monotonic() - start
        if seconds > _NOTHING_DONE:
            chain.state.add_seconds(chain.plan.spec.study, name, seconds)


def _first_of(error: BaseException) -> BaseException:
    """The first error of a group that is none itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
