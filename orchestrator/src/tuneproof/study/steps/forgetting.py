"""Step: lm-eval on the base model and on each adapter, to see what tuning forgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tuneproof.results import TaskScore
from tuneproof.servicekit.digests import sha256_of_file, sha256_of_json
from tuneproof.servicekit.errors import InvalidInput, TuneproofError
from tuneproof.study.design.plan import PlannedCell
from tuneproof.study.design.spec import ForgettingSpec
from tuneproof.study.services import Services
from tuneproof.study.state.store import Task, task
from tuneproof.study.steps.chain import Chain
from tuneproof.study.steps.lm_eval import Asked, run_lm_eval
from tuneproof.study.steps.serving import make_room, serve
from tuneproof.study.steps.tally import Piece, Tally, pieces_of
from tuneproof.study.steps.work import persist


def forgetting_cells(chain: Chain) -> list[PlannedCell]:
    """The baselines and the tuned cells; none where the file names no tasks."""
    plan = chain.plan
    bases = [cell for cell in plan.baselines.values() if not cell.is_api]
    return [*bases, *plan.tuned] if plan.spec.forgetting is not None else []


def forgetting_tasks(chain: Chain) -> dict[str, Task]:
    """Runs of lm-eval by cell, of those that have their adapter."""
    spec, adapters = chain.plan.spec.forgetting, chain.adapters()
    if spec is None:
        return {}
    return {
        cell.name: task(
            "forgetting",
            {
                "base": chain.identities.of(cell.model).content,
                "adapter": adapters.get(cell.name, ""),
                "tasks": list(spec.tasks),
                "limit": spec.limit,
                "fewshot": spec.fewshot,
                "files": _content(spec),
            },
        )
        for cell in forgetting_cells(chain)
        if cell.tune is None or cell.name in adapters
    }


def _content(spec: ForgettingSpec) -> str:
    """The digest over task files of one's own; empty without any."""
    if spec.include is None:
        return ""
    files = sorted(path for path in spec.include.rglob("*") if path.is_file())
    return sha256_of_json(
        {str(path.relative_to(spec.include)): sha256_of_file(path) for path in files}
    )


async def measure_forgetting(chain: Chain, services: Services, tally: Tally) -> None:
    """Runs lm-eval for each cell without results, one after the other. A failure is noted."""
    spec = chain.plan.spec.forgetting
    pieces = pieces_of(forgetting_tasks(chain).values(), chain.state, tally)
    if spec is None or not pieces:
        return
    tokenizer = spec.tokenizer or chain.plan.model
    if not tokenizer:
        raise InvalidInput(
            "lm-eval counts tokens itself: name the base model with --model, or its tokenizer in"
            " forgetting.tokenizer",
            field="forgetting.tokenizer",
        )

    async def again() -> None:
        url = spec.url or await services.openai_url()
        for each in chain.state.missing(piece.task for piece in pieces.values()):
            asked = Asked(spec, "", url, tokenizer, services.token)
            with pieces[each.key].in_hand():
                await _measure(chain, services, pieces[each.key], asked, tally)

    await persist(again, recover=services.recover)


async def _measure(
    chain: Chain,
    services: Services,
    piece: Piece,
    asked: Asked,
    tally: Tally,
) -> None:
    adapter = str(piece.task.inputs["adapter"])
    await serve(await services.generator(), adapter, tally.note)
    model = adapter or chain.identities.of(chain.plan.baseline.model).served
    tally.note(f"lm-eval of {model.partition('@')[0]}")
    try:
        found = await run_lm_eval(replace(asked, model=model))
    except InvalidInput:
        raise
    except TuneproofError as error:
        piece.fail(chain.state, error.message)
        tally.note(error.message)
    else:
        piece.keep(chain.state, found)
    adapters = len(set(chain.adapters().values()))
    await make_room(services, adapter, adapters, tally.note)


def scores_of(output: Mapping[str, Any] | None) -> tuple[TaskScore, ...]:
    """A cell's scores on the tasks."""
    if output is None:
        return ()
    return tuple(
        TaskScore(
            name,
            metric,
            found["value"],
            found["standard_error"],
            output["samples"].get(name),
        )
        for name, metrics in output["tasks"].items()
        for metric, found in metrics.items()
    )


def failures_of(chain: Chain) -> Sequence[str]:
    """Why cells have no scores, a sentence each."""
    tasks = forgetting_tasks(chain)
    told = chain.state.failures(each.key for each in tasks.values())
    return [
        f"{cell} was not measured by lm-eval: {told[each.key]}"
        for cell, each in tasks.items()
        if each.key in told
    ]
