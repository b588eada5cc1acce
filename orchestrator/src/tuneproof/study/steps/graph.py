"""Trainings, answers and grades as one graph: each piece begins when what it needs is there.

    training ──→ adapter ──→ its cells' answers ──→ a grade for each
    (or none, where the base model answers)

A path leads from each training, and one from the base model, to the last answer that needs it.
Every service has a lane of its own, where the pieces of all paths wait. A path whose training fails
ends there; the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tuneproof.servicekit.tracing import span
from tuneproof.study.design.plan import PlannedCell
from tuneproof.study.services import Services
from tuneproof.study.state.store import Task
from tuneproof.study.steps.answering import Answering
from tuneproof.study.steps.chain import AnswerWork, Chain
from tuneproof.study.steps.judging import Grading
from tuneproof.study.steps.tally import (
    ANSWERS,
    CORPUS,
    GRADES,
    JUDGE_CHECK,
    READER_ANSWERS,
    READER_SCORES,
    RETRIEVAL,
    TRAINING,
    Tally,
)
from tuneproof.study.steps.training import Trainings


class Graph:
    """What a study does once its searches are done.

    Args:
        tallies: by stage.
        artifacts: the artifact store that trainer and generator share: a folder, or a URL.
        in_turn: first all trainings, then all answers, then all grades; else all at once.
        grades: whether its answers are graded as they come; else `grade_answers` does it later.
    """

    def __init__(
        self,
        chain: Chain,
        services: Services,
        tallies: Mapping[str, Tally],
        *,
        artifacts: str,
        in_turn: bool,
        grades: bool = True,
    ) -> None:
        self._with_grades = grades
        self.answered = 0
        """Answers that it has got."""
        self._chain = chain
        self._tallies = tallies
        for tally in tallies.values():
            if tally.count.stage not in (CORPUS, RETRIEVAL):
                tally.try_again()
        self._in_turn = in_turn
        self._searched = chain.searched()
        self._trained = frozenset(chain.adapters())
        """Cells whose answers the tallies have counted already."""
        self._paths = _paths(chain)
        bounds = chain.plan.spec.execution
        self._trainings = Trainings(
            chain,
            services,
            tallies[TRAINING],
            artifacts=artifacts,
            at_once=bounds.trainings,
        )
        self._answering = Answering(
            chain,
            services,
            self._tally_of,
            self._grade_answer,
            tallies[ANSWERS].note,
            adapters=len(self._paths),
            in_flight=bounds.answers,
        )
        self._grading = Grading(chain, services, tallies)

    async def run(self) -> None:
        """Does what is missing.

        Raises:
            ExceptionGroup: of what stops the whole study.
        """
        if self._with_grades:
            self._grading.ask(self._chain.form_grades(), JUDGE_CHECK)
        # Where stages take turns, no path goes on before every training has ended.
        trained = asyncio.Barrier(len(self._paths) + 1 if self._in_turn else 1)
        async with asyncio.TaskGroup() as lanes:
            if not self._in_turn:
                lanes.create_task(self._grading.run())
            async with asyncio.TaskGroup() as answers:
                answers.create_task(self._answer())
                async with asyncio.TaskGroup() as paths:
                    paths.create_task(self._base_path(trained))
                    for task, cells in self._paths:
                        paths.create_task(self._path(task, cells, trained))
                self._answering.close()
            if self._in_turn:
                lanes.create_task(self._grading.run())
            self._grading.close()

    async def _base_path(self, trained: asyncio.Barrier) -> None:
        await trained.wait()
        cells = [cell for cell in self._chain.plan.cells if cell.tune is None]
        await self._answering.answer("", partial(self._works, cells, ""))

    async def _path(
        self, task: Task, cells: Sequence[PlannedCell], trained: asyncio.Barrier
    ) -> None:
        adapter = await self._trainings.adapter(task, cells)
        await trained.wait()
        if adapter is not None:
            await self._answering.answer(adapter, partial(self._works, cells, adapter))

    def _works(self, cells: Sequence[PlannedCell], adapter: str) -> list[AnswerWork]:
        chain = self._chain
        works = [work for cell in cells for work in chain.answers_of(cell, adapter, self._searched)]
        return works if adapter else [*works, *chain.reader_answers()]

    async def _answer(self) -> None:
        with span("answers"):
            await self._answering.run()

    def _tally_of(self, work: AnswerWork) -> Tally:
        return self._tallies[READER_ANSWERS if work.check else ANSWERS]

    def _grade_answer(self, work: AnswerWork, output: Any, is_new: bool) -> None:
        counted = not is_new and (work.cell.tune is None or work.cell.name in self._trained)
        if not is_new and not counted:
            self._tally_of(work).already(self._chain.state)
        self.answered += is_new
        if not self._with_grades:
            return
        stage = READER_SCORES if work.check else GRADES
        there = self._grading.ask([self._chain.grade_of(work, output["text"])], stage)
        if there and not counted:
            self._tallies[stage].already(self._chain.state)


async def grade_answers(chain: Chain, services: Services, tallies: Mapping[str, Tally]) -> None:
    """Has every answer graded that is not yet, and the forms of the judge's check.

    Args:
        tallies: as they are counted now.
    """
    grading = Grading(chain, services, tallies)
    for stage in (GRADES, READER_SCORES, JUDGE_CHECK):
        if stage in tallies:
            tallies[stage].try_again()
    grading.ask(list(chain.grades().values()), GRADES)
    if chain.oracle:
        grading.ask(list(chain.reader_grades().values()), READER_SCORES)
    grading.ask(chain.form_grades(), JUDGE_CHECK)
    grading.close()
    await grading.run()


def _paths(chain: Chain) -> list[tuple[Task, list[PlannedCell]]]:
    """Trainings with the cells that use them; cells of equal content share one."""
    tasks = chain.training_tasks()
    found: dict[str, tuple[Task, list[PlannedCell]]] = {}
    for cell in chain.plan.tuned:
        if task := tasks.get(cell.name):
            found.setdefault(task.key, (task, []))[1].append(cell)
    return list(found.values())
