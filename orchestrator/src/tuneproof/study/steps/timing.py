"""Step: a few answers of each cell once more, one request at a time, for cost and latency.

In a batch an answer's time is mostly the queue's. These are asked when the batch is done, with
nothing else of the study in the generator. Their prompts were asked before, so that the prefix
cache may spare some of their tokens: how many is kept too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from statistics import fmean
from typing import Any

from tuneproof.results import Alone
from tuneproof.sdk import Generation, GeneratorClient, Sampling
from tuneproof.servicekit.errors import Internal, TuneproofError, Unavailable
from tuneproof.study.services import Services
from tuneproof.study.state.store import Task, task
from tuneproof.study.steps.chain import Chain
from tuneproof.study.steps.given import output_of
from tuneproof.study.steps.serving import make_room, serve
from tuneproof.study.steps.tally import Piece, Tally, pieces_of
from tuneproof.study.steps.work import persist


def timed_tasks(chain: Chain) -> dict[str, list[Task]]:
    """What is asked alone, by cell: the first questions that the cell has answered."""
    most = chain.plan.spec.costs.timed
    found = {}
    for cell, works in chain.answers_by_cell() if most else ():
        if cell.is_api:  # What its endpoint takes is not ours to measure.
            continue
        asked = [work.task for work in works if output_of(work.task) is None]
        missing = chain.state.without_output(each.key for each in asked)
        done = [each for each in asked if each.key not in missing][:most]
        found[cell.name] = [task("timing", {**each.inputs, "alone": True}) for each in done]
    return {cell: tasks for cell, tasks in found.items() if tasks}


def timed_total(chain: Chain) -> int:
    """How many there are once all is answered."""
    cells = [c for c in chain.plan.cells if c.arm.imported is None and not c.is_api]
    return len(cells) * min(chain.plan.spec.costs.timed, len(chain.plan.asked))


async def time_alone(chain: Chain, services: Services, tally: Tally) -> None:
    """Asks for what is not timed yet, cell after cell. A request that fails is noted."""
    tasks = [each for cell in timed_tasks(chain).values() for each in cell]
    pieces = pieces_of(tasks, chain.state, tally)

    async def again() -> None:
        missing = chain.state.missing(piece.task for piece in pieces.values())
        if missing:
            await _time(chain, services, [pieces[each.key] for each in missing], tally)

    await persist(again, recover=services.recover)


async def _time(chain: Chain, services: Services, pieces: Sequence[Piece], tally: Tally) -> None:
    generator = await services.generator()
    adapters = len(set(chain.adapters().values()))
    by_adapter: dict[str, list[Piece]] = defaultdict(list)
    for piece in pieces:
        by_adapter[str(piece.task.inputs["adapter"])].append(piece)
    for adapter, group in by_adapter.items():
        with _noting(chain, group):
            await serve(generator, adapter, tally.note)
            for piece in group:
                with _noting(chain, [piece]), piece.in_hand():
                    answer = await _ask(generator, piece.task)
                    piece.keep(chain.state, _output(answer, adapter))
        await make_room(services, adapter, adapters, tally.note)


@contextmanager
def _noting(chain: Chain, pieces: Sequence[Piece]) -> Iterator[None]:
    """Notes a failure of pieces and goes on; a lost service is no failure of theirs."""
    try:
        yield
    except Unavailable:
        raise
    except TuneproofError as error:
        for piece in pieces:
            piece.fail(chain.state, error.message)


async def _ask(generator: GeneratorClient, asked: Task) -> Generation:
    given = asked.inputs
    sampling = Sampling(max_tokens=given["sampling"]["max_tokens"], temperature=0.0)
    pieces = generator.generate(given["adapter"], given["messages"], sampling)
    async with aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, Generation):
                return piece
    raise Internal("the answer ended without its usage")


def _output(generation: Generation, adapter: str) -> dict[str, Any]:
    if generation.adapter_ref != adapter:
        raise Internal(f"asked {adapter or 'the base model'}, but {generation.served_by} answered")
    return {
        "stages": dict(generation.stage_seconds),
        "prompt_tokens": generation.prompt_tokens,
        "completion_tokens": generation.completion_tokens,
        "cached_tokens": generation.cached_tokens,
    }


def alone_of(found: Iterable[Mapping[str, Any]]) -> Alone | None:
    """Means over a cell's timed answers; None without any."""
    outputs = list(found)
    if not outputs:
        return None
    stages = [each["stages"] for each in outputs]
    prompts = sum(each["prompt_tokens"] for each in outputs)
    return Alone(
        answers=len(outputs),
        seconds=fmean(sum(each.values()) for each in stages),
        first_token_seconds=fmean(
            each.get("queue", 0.0) + each.get("first_token", 0.0) for each in stages
        ),
        cached_share=sum(each["cached_tokens"] for each in outputs) / prompts if prompts else 0.0,
    )
