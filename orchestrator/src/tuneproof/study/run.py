"""A study from its first missing step to its last; what is done is never done again."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from tuneproof.servicekit.tracing import span
from tuneproof.study.progress import Progress
from tuneproof.study.services import Services
from tuneproof.study.status import is_complete, status_of
from tuneproof.study.steps.answering import answer
from tuneproof.study.steps.chain import Chain
from tuneproof.study.steps.judging import check, judge
from tuneproof.study.steps.retrieval import make_corpus, search
from tuneproof.study.steps.training import train
from tuneproof.study.steps.work import persist

_NOTHING_DONE = 0.5
"""Seconds below which a stage only found that all was there."""

Step = Callable[[], Awaitable[None]]


async def run_study(
    chain: Chain, services: Services, progress: Progress, *, artifacts: str
) -> None:
    """Does what the study still lacks. No service is reached when nothing is missing.

    Args:
        artifacts: the artifact store that trainer and generator share: a folder, or a URL.

    Raises:
        TuneproofError: what stops the whole study. A single item, training or adapter that fails
            does not; it is noted in the state and tried again by the next run.
    """
    if is_complete(status_of(chain)):
        return
    steps: list[tuple[str, Step]] = [
        ("services", services.start),
        (
            "corpus",
            lambda: persist(
                lambda: make_corpus(chain, services, progress), recover=services.recover
            ),
        ),
        ("retrieval", lambda: search(chain, services, progress)),
        (
            "training",
            lambda: persist(
                lambda: train(chain, services, progress, artifacts), recover=services.recover
            ),
        ),
        ("answers", lambda: answer(chain, services, progress)),
        ("grades", lambda: judge(chain, services, progress)),
        ("checks", lambda: check(chain, services, progress)),
    ]
    study = chain.plan.spec.study
    with span("study run", {"tuneproof.study": study}):
        for name, step in steps:
            start = time.monotonic()
            try:
                with span(name):
                    await step()
            finally:
                seconds = time.monotonic() - start
                if seconds > _NOTHING_DONE:
                    chain.state.add_seconds(study, name, seconds)
