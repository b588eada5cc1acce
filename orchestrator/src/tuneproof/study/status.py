"""How far a study is, from its state alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.study.design.spec import StudySpec
from tuneproof.study.state.store import Count, State, Task
from tuneproof.study.steps.chain import AnswerWork, Chain
from tuneproof.study.steps.comparing import compared_pairs, comparisons_total
from tuneproof.study.steps.forgetting import forgetting_cells, forgetting_tasks
from tuneproof.study.steps.tally import (
    ANSWERS,
    COMPARISONS,
    CORPUS,
    FORGETTING,
    GRADES,
    JUDGE_CHECK,
    READER_ANSWERS,
    READER_SCORES,
    RETRIEVAL,
    TIMING,
    TRAINING,
)
from tuneproof.study.steps.timing import timed_tasks, timed_total


def status_of(chain: Chain) -> list[Count]:
    """Counts every stage anew, in order.

    The total counts each cell's answer to each item; equal inputs share one piece of work. Holds
    the answers of one cell at a time.
    """
    plan, searches = chain.plan, chain.searches
    corpora, near = searches.corpora(), searches.neighbour_tasks()
    found = [*searches.retrieval_tasks().values(), *near.values()]
    wanted = len(searches.searched_items()) + len(searches.searching) * len(plan.test)
    trainings = chain.training_tasks().values()
    places = len(plan.cells) * len(plan.asked)
    stages = _Counting(chain.state, plan.spec.study)
    stages.add(CORPUS, [corpus.task for corpus in corpora], total=len(corpora))
    stages.add(RETRIEVAL, found, total=wanted)
    stages.add(TRAINING, trainings, total=len(plan.tuned))
    for _, works in chain.answers_by_cell():
        stages.add(ANSWERS, [work.task for work in works], total=places)
        stages.add(GRADES, _grades_of(chain, works), total=places)
    if chain.oracle:
        works = chain.reader_answers()
        stages.add(READER_ANSWERS, [work.task for work in works], total=len(works))
        stages.add(READER_SCORES, _grades_of(chain, works), total=len(works))
    if tasks := chain.form_grades():
        stages.add(JUDGE_CHECK, tasks, total=len(tasks))
    return [*stages.counts, *last_stages_of(chain)]


@dataclass(frozen=True, slots=True)
class CellCount:
    """How far one cell is."""

    cell: str
    model: str
    """What the study file calls it; empty where it lists none."""
    training: Literal["none", "done", "waits", "failed"]
    """`none` where the base model answers; `waits` for its passages, its turn or its end."""
    answers: int
    """Of `questions`."""
    grades: int
    questions: int
    failed: int
    """Answers and grades that were tried and failed."""
    why: str
    """Why the first of these, or the training, failed; empty where none did."""


def cells_of(chain: Chain) -> list[CellCount]:
    """Counts every cell anew, in the order of the study. It reads every answer."""
    state, tasks = chain.state, chain.training_tasks()
    trained = state.outputs(tasks)
    lost = state.failures(task.key for name, task in tasks.items() if name not in trained)
    found = []
    for cell, works in chain.answers_by_cell():
        asked, graded = [work.task.key for work in works], _grades_of(chain, works)
        no_answer = state.without_output(asked)
        no_grade = state.without_output([task.key for task in graded])
        failed = state.failures([*no_answer, *no_grade])
        training: Literal["none", "done", "waits", "failed"] = "none"
        why = next(iter(failed.values()), "")
        if cell.tune is not None:
            key = tasks[cell.name].key if cell.name in tasks else ""
            training = "done" if cell.name in trained else "failed" if key in lost else "waits"
            why = lost.get(key, "") or why
        found.append(
            CellCount(
                cell.name,
                cell.model,
                training,
                answers=sum(key not in no_answer for key in asked),
                grades=sum(task.key not in no_grade for task in graded),
                questions=len(chain.plan.asked),
                failed=sum(key in failed for key in [*asked, *(task.key for task in graded)]),
                why=why,
            )
        )
    return found


def last_stages_of(chain: Chain) -> list[Count]:
    """The stages that follow when everything is answered and judged."""
    stages = _Counting(chain.state, chain.plan.spec.study)
    if total := comparisons_total(chain):
        pairs = compared_pairs(chain)
        asked = [one.task for one in pairs if one.task is not None]
        stages.add(COMPARISONS, asked, total=total - len(pairs) + len(asked))
    if total := timed_total(chain):
        tasks = [each for cell in timed_tasks(chain).values() for each in cell]
        stages.add(TIMING, tasks, total=total)
    if cells := forgetting_cells(chain):
        stages.add(FORGETTING, forgetting_tasks(chain).values(), total=len(cells))
    return stages.counts


def last_status(state: State, spec: StudySpec) -> list[Count]:
    """What the last run of a study file counted, or the run under way; nothing where none did.

    Reads a row for each stage, however large the study.
    """
    return state.counts(spec.study, digest_of(spec))


def digest_of(spec: StudySpec) -> str:
    """The study file, as its counts name it."""
    return sha256_of_json(spec.model_dump(mode="json"))


def is_complete(stages: Iterable[Count]) -> bool:
    """Whether nothing is missing."""
    return all(stage.done == stage.total for stage in stages)


def _grades_of(chain: Chain, works: list[AnswerWork]) -> list[Task]:
    outputs: Mapping[int, Any] = chain.state.outputs(
        {place: work.task for place, work in enumerate(works)}
    )
    return [chain.grade_of(works[place], output["text"]) for place, output in outputs.items()]


class _Counting:
    """Counts of stages, which grow by the tasks that are added."""

    def __init__(self, state: State, study: str) -> None:
        self._state, self._study = state, study
        self._stages: dict[str, Count] = {}

    def add(self, stage: str, tasks: Iterable[Task], *, total: int) -> None:
        listed = [task.key for task in tasks]
        missing = self._state.without_output(listed)
        failed = self._state.failures(missing)
        before = self._stages.get(stage, Count(self._study, stage, 0, total, 0))
        self._stages[stage] = Count(
            self._study,
            stage,
            before.done + sum(key not in missing for key in listed),
            total,
            before.failed + sum(key in failed for key in listed),
        )

    @property
    def counts(self) -> list[Count]:
        return list(self._stages.values())
