"""Step: every cell's answer to every question, and the base model's of the reader's check."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

from tuneproof.sdk import GenerateInput, Generation, GeneratorClient, Sampling
from tuneproof.servicekit.errors import Internal, TuneproofError, Unavailable
from tuneproof.study.progress import Progress, Stage
from tuneproof.study.services import Services, pool_to_json
from tuneproof.study.state.store import Task, task
from tuneproof.study.steps.chain import Chain
from tuneproof.study.steps.work import Outcome, complete, persist

_AWAY_SECONDS = 10.0
"""After so long a generator is taken for lost; one of this machine does not come back by itself."""


async def answer(chain: Chain, services: Services, progress: Progress) -> None:
    """Has every missing answer generated, greedily.

    Adapters are loaded as many at a time as one batch of the engine can hold, so that they do not
    push each other out.
    """
    tasks = [work.task for work in [*chain.answers(), *chain.reader_answers()]]
    missing = chain.state.missing(tasks)
    if not missing:
        return
    distinct = len({each.key for each in tasks})
    with progress.stage("answers", distinct, distinct - len(missing)) as stage:
        await persist(partial(_connect, services), recover=services.recover)
        remember_pool(chain, services)
        width = max(1, services.pool.max_loras if services.pool else 1)
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


async def _connect(services: Services) -> None:
    await services.generator()


def pool_task(chain: Chain) -> Task:
    """Under which the state keeps what the generator said of itself."""
    return task("pool", {"base": chain.identities.model})


def remember_pool(chain: Chain, services: Services) -> None:
    """Keeps the generator's description for the report."""
    if services.pool is not None:
        chain.state.put(pool_task(chain), pool_to_json(services.pool))


def _groups(tasks: Sequence[Task], width: int) -> list[list[Task]]:
    """Tasks in groups with at most `width` adapters each; the base model's go first."""
    adapters = list(dict.fromkeys(str(each.inputs["adapter"]) for each in tasks))
    named = [adapter for adapter in adapters if adapter]
    parts = [named[start : start + width] for start in range(0, len(named), width)] or [[]]
    wanted = [{"", *part} if index == 0 else set(part) for index, part in enumerate(parts)]
    return [[each for each in tasks if each.inputs["adapter"] in part] for part in wanted]


async def _ask(services: Services, stage: Stage, tasks: Sequence[Task]) -> AsyncIterator[Outcome]:
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
    return {
        "text": generation.text,
        "finish_reason": generation.finish_reason,
        "prompt_tokens": generation.prompt_tokens,
        "completion_tokens": generation.completion_tokens,
        "seconds": generation.seconds,
        "served_by": generation.served_by,
    }


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
        if isinstance(outcome, Unavailable) or (
            isinstance(outcome, BaseException) and not isinstance(outcome, TuneproofError)
        ):
            raise outcome
        if isinstance(outcome, TuneproofError):
            failed[ref] = outcome
    return failed


async def _remove(generator: GeneratorClient, group: Sequence[Task], stage: Stage) -> None:
    for ref in dict.fromkeys(str(each.inputs["adapter"]) for each in group):
        if ref:
            try:
                await generator.remove(ref)
            except TuneproofError as error:
                stage.note(f"{ref} was not removed: {error.message}")
