"""A study from its first missing step to its last; nothing is done twice."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial

from tuneproof.servicekit.tracing import span
from tuneproof.study.progress import Progress
from tuneproof.study.services import Services
from tuneproof.study.state.store import Kind
from tuneproof.study.status import is_complete, status_of
from tuneproof.study.steps.answering import answer
from tuneproof.study.steps.chain import Chain
from tuneproof.study.steps.forgetting import measure_forgetting
from tuneproof.study.steps.importing import import_answers
from tuneproof.study.steps.judging import check, judge
from tuneproof.study.steps.retrieval import make_corpora, search
from tuneproof.study.steps.timing import time_alone
from tuneproof.study.steps.training import train
from tuneproof.study.steps.work import persist

_NOTHING_DONE = 0.5
"""Seconds. A shorter stage found everything done, and does not count."""

_MEASURED: dict[str, Kind] = {"answers": "answer", "grades": "grade"}
"""Stages whose rate a plan of another study uses, with the kind of their pieces."""

Step = Callable[[], Awaitable[None]]


async def run_study(
    chain: Chain, services: Services, progress: Progress, *, artifacts: str
) -> None:
    """Does what is missing of the study. Where nothing is, it reaches no service.

    Args:
        artifacts: the artifact store that trainer and generator share: a folder, or a URL.

    Raises:
        TuneproofError: what stops the whole study. A single item, training or adapter that fails
            does not: the state notes it, and the next run tries it again.
    """
    import_answers(chain)
    if is_complete(status_of(chain)):
        return
    given = chain, services, progress
    again = partial(persist, recover=services.recover)
    steps: list[tuple[str, Step]] = [
        ("services", services.start),
        ("corpus", partial(again, partial(make_corpora, *given))),
        ("retrieval", partial(search, *given)),
        ("imports", partial(_import, chain)),
        ("training", partial(again, partial(train, *given, artifacts))),
        ("answers", partial(answer, *given)),
        ("grades", partial(judge, *given)),
        ("checks", partial(check, *given)),
        ("timing", partial(time_alone, *given)),
        ("forgetting", partial(measure_forgetting, *given)),
    ]
    study = chain.plan.spec.study
    with span("study run", {"tuneproof.study": study}):
        for name, step in steps:
            start, kind = time.monotonic(), _MEASURED.get(name)
            before = chain.state.written[kind] if kind else 0
            try:
                with span(name):
                    await step()
            finally:
                seconds = time.monotonic() - start
                if seconds > _NOTHING_DONE:
                    chain.state.add_seconds(study, name, seconds)
                if kind and (done := chain.state.written[kind] - before):
                    names = chain.identities
                    model = names.judge_name if kind == "grade" else names.model_name
                    chain.state.add_rate(name, model, seconds, done)


async def _import(chain: Chain) -> None:
    import_answers(chain)
