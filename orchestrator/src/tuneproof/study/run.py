"""A study from its first missing step to its last; nothing is done twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    closing,
    contextmanager,
    nullcontext,
)
from functools import partial

from tuneproof.servicekit.tracing import span
from tuneproof.study.progress import Progress
from tuneproof.study.services import Services
from tuneproof.study.status import digest_of, is_complete, last_stages_of, status_of
from tuneproof.study.steps.api_answering import ApiAnswers
from tuneproof.study.steps.chain import Chain
from tuneproof.study.steps.comparing import compare_answers
from tuneproof.study.steps.forgetting import measure_forgetting
from tuneproof.study.steps.graph import Graph, grade_answers
from tuneproof.study.steps.importing import import_answers
from tuneproof.study.steps.retrieval import make_corpora, search
from tuneproof.study.steps.tally import (
    ANSWERS,
    COMPARISONS,
    CORPUS,
    FORGETTING,
    GRADES,
    JUDGE_CHECK,
    READER_ANSWERS,
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
            bases = _in_order(chain, services)
            async with _of(services, bases[0]) as first:
                with _stage(chain, "services"):
                    await first.start()
                if not is_complete([tallies[RETRIEVAL].count]):
                    await _search(chain, first, progress)
                    import_answers(chain)
                    tallies = _count(chain, progress)
            later = services.one_at_a_time and len(bases) > 1
            given = chain, services, progress
            await _answer(
                *given,
                tallies,
                bases=bases,
                artifacts=artifacts,
                in_turn=in_turn,
                grades=not later,
            )
            if later or chain.plan.spec.apis:
                await _grade(chain, services, progress)
            await _compare(chain, services, progress)
            for base in [] if later else bases:
                async with _of(services, base) as at:
                    await _run_last(chain, base, at, progress)
    except BaseExceptionGroup as group:
        raise _first_of(group) from None


async def _search(chain: Chain, services: Services, progress: Progress) -> None:
    with _stage(chain, CORPUS):
        await persist(partial(make_corpora, chain, services, progress), recover=services.recover)
    tally = _count(chain, progress)[RETRIEVAL]
    with _stage(chain, RETRIEVAL), closing(tally):
        await search(chain, services, tally, in_flight=chain.plan.spec.execution.searches)


def _of(services: Services, base: str) -> AbstractAsyncContextManager[Services]:
    """The services with a base's generator; those of the only, unnamed one stay connected."""
    return services.of(base) if base else nullcontext(services)


def _in_order(chain: Chain, services: Services) -> list[str]:
    """The bases in the file's order. Where one is served at a time: first those that have work, and
    of these last the one that judges, so that each is served once."""
    bases = [base for base, cell in chain.plan.baselines.items() if not cell.is_api]
    if not services.one_at_a_time or len(bases) == 1:
        return bases
    done = {base: _is_answered(chain.part(base)) for base in bases}
    return sorted(bases, key=lambda base: (done[base], base == chain.identities.judging))


def _is_answered(part: Chain) -> bool:
    done = {count.stage: is_complete([count]) for count in status_of(part)}
    return done[TRAINING] and done[ANSWERS] and done.get(READER_ANSWERS, True)


async def _answer(
    chain: Chain,
    services: Services,
    progress: Progress,
    tallies: Mapping[str, Tally],
    *,
    bases: Sequence[str],
    artifacts: str,
    in_turn: bool,
    grades: bool,
) -> None:
    """Trainings and answers of every model, with the grades where these need not wait."""

    async def one(base: str, at: Services) -> None:
        before = tallies[ANSWERS].seconds
        graph = graphs[base]
        await graph.run()
        if not grades:  # Another base is served next.
            await _run_last(chain, base, at, progress)
        if graph.answered:  # A plan of another study uses the rate.
            seconds = tallies[ANSWERS].seconds - before
            served = chain.identities.of(base).served
            chain.state.add_rate(ANSWERS, served, seconds, graph.answered)

    # All are made before the first one runs: they count what failed before as missing.
    given = {base: services.of(base) if base else services for base in bases}
    graphs = {
        base: Graph(
            chain.part(base), at, tallies, artifacts=artifacts, in_turn=in_turn, grades=grades
        )
        for base, at in given.items()
    }
    asking = [ApiAnswers(chain.part(api.name), tallies[ANSWERS]) for api in chain.plan.spec.apis]
    try:
        if services.one_at_a_time:
            for base, at in given.items():
                async with at if base else nullcontext():
                    await one(base, at)
            for api in asking:
                await api.run()
        else:
            async with AsyncExitStack() as stack, asyncio.TaskGroup() as models:
                for base, at in given.items():
                    if base:
                        await stack.enter_async_context(at)
                    models.create_task(one(base, at))
                for api in asking:
                    models.create_task(api.run())
        chain.state.count([tally.count for tally in tallies.values()], digest_of(chain.plan.spec))
    finally:
        _close(chain, tallies)


async def _grade(chain: Chain, services: Services, progress: Progress) -> None:
    """The grades that had to wait for the last answer."""
    tallies = _count(chain, progress)
    try:
        async with _of(services, chain.identities.judging) as judging:
            await grade_answers(chain, judging, tallies)
        chain.state.count([tally.count for tally in tallies.values()], digest_of(chain.plan.spec))
    finally:
        _close(chain, tallies)


async def _compare(chain: Chain, services: Services, progress: Progress) -> None:
    """The judge's comparisons of answers, where the study asks for them."""
    counts = [count for count in last_stages_of(chain) if count.stage == COMPARISONS]
    if is_complete(counts):
        return
    (tally,) = (Tally(count, progress) for count in counts)
    chain.state.recount([tally.count])
    async with _of(services, chain.identities.judging) as judging:
        with _stage(chain, COMPARISONS), closing(tally):
            await compare_answers(chain, judging, tally)


async def _run_last(chain: Chain, base: str, services: Services, progress: Progress) -> None:
    """What wants the generator of a base for itself, one after the other."""
    part = chain.part(base)
    tallies = {count.stage: Tally(count, progress) for count in last_stages_of(chain)}
    chain.state.recount([tally.count for tally in tallies.values()])
    for stage, step in ((TIMING, time_alone), (FORGETTING, measure_forgetting)):
        if stage in tallies:
            with _stage(chain, stage), closing(tallies[stage]):
                await step(part, services, tallies[stage])


def _count(chain: Chain, progress: Progress) -> dict[str, Tally]:
    """Tallies of all stages, from what is there; stored, so that a status need not count."""
    counts = status_of(chain)
    chain.state.count(counts, digest_of(chain.plan.spec))
    return {count.stage: Tally(count, progress) for count in counts}


def _close(chain: Chain, tallies: Mapping[str, Tally]) -> None:
    """Ends the display, and keeps how long the stages took."""
    names, study = chain.identities, chain.plan.spec.study
    for tally in tallies.values():
        tally.close()
    for stage, name in _TIMED.items():
        if stage in tallies and (seconds := tallies[stage].seconds) > _NOTHING_DONE:
            chain.state.add_seconds(study, name, seconds)
    if fresh := tallies[GRADES].fresh:  # A plan of another study uses the rate.
        chain.state.add_rate(GRADES, names.judge_name, tallies[GRADES].seconds, fresh)


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
