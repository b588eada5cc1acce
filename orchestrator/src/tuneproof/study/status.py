"""How far a study is, from its state alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tuneproof.study.state.store import State, Task
from tuneproof.study.steps.chain import Chain
from tuneproof.study.steps.forgetting import forgetting_cells, forgetting_tasks
from tuneproof.study.steps.timing import timed_tasks, timed_total


@dataclass(frozen=True, slots=True)
class StageStatus:
    """One stage's count."""

    name: str
    done: int
    total: int
    failed: int
    """How many of the others were tried and failed."""


def status_of(chain: Chain) -> list[StageStatus]:
    """Every stage in order.

    The total counts each cell's answer to each item; equal inputs share one piece of work.
    """
    plan, state = chain.plan, chain.state
    places = len(plan.cells) * len(plan.test)
    corpora, near = chain.searches.corpora(), chain.searches.neighbour_tasks()
    searches = [*chain.searches.retrieval_tasks().values(), *near.values()]
    wanted = len(chain.searches.searched_items()) + len(chain.searches.searching) * len(plan.test)
    stages = [
        _count("corpus", state, [corpus.task for corpus in corpora], len(corpora)),
        _count("retrieval", state, searches, wanted),
        _count("training", state, chain.training_tasks().values(), len(plan.tuned)),
        _count("answers", state, [work.task for work in chain.answers()], places),
        _count("grades", state, chain.grades().values(), places),
    ]
    if chain.oracle:
        works, wanted = chain.reader_answers(), len(chain.oracle)
        stages.append(_count("reader check: answers", state, [w.task for w in works], wanted))
        scored = chain.reader_grades().values()
        stages.append(_count("reader check: scores", state, scored, wanted))
    if chain.forms:
        tasks = chain.form_grades()
        stages.append(_count("judge check", state, tasks, len(tasks)))
    if total := timed_total(chain):
        tasks = [each for cell in timed_tasks(chain).values() for each in cell]
        stages.append(_count("timing", state, tasks, total))
    if cells := forgetting_cells(chain):
        stages.append(_count("forgetting", state, forgetting_tasks(chain).values(), len(cells)))
    return stages


def is_complete(stages: Iterable[StageStatus]) -> bool:
    """Whether nothing is missing."""
    return all(stage.done == stage.total for stage in stages)


def _count(name: str, state: State, tasks: Iterable[Task], total: int) -> StageStatus:
    listed = list(tasks)
    missing = {task.key for task in state.missing(listed)}
    failed = set(state.failures(missing))
    return StageStatus(
        name,
        done=sum(task.key not in missing for task in listed),
        total=total,
        failed=sum(task.key in failed for task in listed),
    )
