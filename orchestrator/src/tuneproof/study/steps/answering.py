"""Step: every cell's answer to every question, and the base model's of the reader's check."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

from tuneproof.sdk import GenerateInput, Generation, GeneratorClient, Sampling
from tuneproof.servicekit.errors import Internal, TuneproofError, Unavailable
from tuneproof.study.progress import Progress, Stage
from tuneproof.study.services import Services
from tuneproof.study.state.store import Task, task
from tuneproof.study.steps.chain import Chain
from tuneproof.study.steps.work import TaskOutcome, complete, persist

_AWAY_SECONDS = 10.0
"""After this time a generator counts as lost, and the study restarts one of this machine."""
_KEPT = ("dtype", "engine_version", "chat_template_digest")
"""Of the generator's description, for the report."""
_ANSWERED = ["text", "finish_reason", "prompt_tokens", "completion_tokens", "seconds", "served_by"]
"""Of an answer, in the state; the fields of `results.Answer` have the same names."""


async def answer(chain: Chain, services: Services, progress: Progress) -> None:
    """Has every missing answer generated, greedily.

    Loads as many adapters at a time as one batch of the engine can hold, so that they do not
    evict each other.
    """
    tasks = [work.task for work in [*chain.answers(), *chain.reader_answers()]]
    missing = chain.state.missing(tasks)
    if not missing:
        return
    distinct = len({each.key for each in tasks})
    with progress.stage("answers", distinct, distinct - len(missing)) as stage:
        await persist(services.generator, recover=services.recover)
        pool = services.pool
        if pool is not None:
            chain.state.put(pool_task(chain), {name: getattr(pool, name) for name in _KEPT})
        width = max(1, pool.max_loras if pool else 1)
        groups = _groups(missing, width)
        for group in groups:
            await complete(
                group,
                partial(_ask, services, stage),
                state=chain.state,
                stage=stage,
                recover=services.recover,
            )
            if len(groups) > 1:
                await _remove(await services.generator(), group, stage)


def pool_task(chain: Chain) -> Task:
    """The task under which the state keeps the generator's description."""
    return task("pool", {"base": chain.identities.model})


def _groups(tasks: Sequence[Task], width: int) -> list[list[Task]]:
    """Tasks in groups with at most `width` adapters each; the base model's go first."""
    adapters = list(dict.fromkeys(str(each.inputs["adapter"]) for each in tasks))
    named = [adapter for adapter in adapters if adapter]
    parts = [named[start : start + width] for start in range(0, len(named), width)] or [[]]
    wanted = [{"", *part} if index == 0 else set(part) for index, part in enumerate(parts)]
    return [[each for each in tasks if each.inputs["adapter"] in part] for part in wanted]


async def _ask(
    services: Services, stage: Stage, tasks: Sequence[Task]
) -> AsyncIterator[TaskOutcome]:
    generator = await services.generator()
    refs = list(dict.fromkeys(str(each.inputs["adapter"]) for each in tasks))
    failed = await _load(generator, [ref for ref in refs if ref], stage)
    for each in tasks:
        if error := failed.get(str(each.inputs["adapter"])):
            yield each.key, error
    by_key = {each.key: each for each in tasks if each.inputs["adapter"] not in failed}
    inputs = {
        key: GenerateInput(
            each.inputs["messages"],
            each.inputs["adapter"],
            Sampling(max_tokens=each.inputs["sampling"]["max_tokens"], temperature=0.0),
        )
        for key, each in by_key.items()
    }
    async for key, outcome in generator.generate_many(inputs):
        if isinstance(outcome, TuneproofError):
            yield key, outcome
        else:
            yield key, _output(outcome, str(by_key[key].inputs["adapter"]))


def _output(generation: Generation, adapter: str) -> object:
    if generation.adapter_ref != adapter:
        return Internal(
            f"asked {adapter or 'the base model'}, but {generation.served_by} answered:"
            " the answer does not count"
        )
    return {name: getattr(generation, name) for name in _ANSWERED}


async def _load(
    generator: GeneratorClient, refs: Sequence[str], stage: Stage
) -> dict[str, TuneproofError]:
    """Has adapters loaded, all at once; errors of those that are not served."""

    async def load(ref: str) -> None:
        name = ref.partition("@")[0]
        await generator.declare(ref)
        await generator.wait_ready(
            ref,
            away_seconds=_AWAY_SECONDS,
            on_change=lambda now: stage.note(f"{name} {now.state}"),
        )

    outcomes = await asyncio.gather(*(load(ref) for ref in refs), return_exceptions=True)
    failed: dict[str, TuneproofError] = {}
    for ref, outcome in zip(refs, outcomes, strict=True):
        if isinstance(outcome, TuneproofError) and not isinstance(outcome, Unavailable):
            failed[ref] = outcome
        elif outcome is not None:
            raise outcome
    return failed


async def _remove(generator: GeneratorClient, group: Sequence[Task], stage: Stage) -> None:
    for ref in dict.fromkeys(str(each.inputs["adapter"]) for each in group):
        if ref:
            try:
                await generator.remove(ref)
            except TuneproofError as error:
                stage.note(f"{ref} was not removed: {error.message}")
