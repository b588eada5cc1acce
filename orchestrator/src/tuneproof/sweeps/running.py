"""Trains the points of a sweep, each as a run, and ranks them by their validation loss.

A trial's run has an id that stands for its content. A sweep that is started again therefore finds
its runs: those that have ended are read, those that go on are waited for.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pydantic import ValidationError

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.sdk import RunInfo, RunSpec
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.sweeps.search import Point, Proposal, Search
from tuneproof.sweeps.spec import SweepSpec

_DIGITS = 12
_MOST_KNOWN = 25
"""Proposals in a row that were trained before, after which a search has nothing new."""


class Trainer(Protocol):
    """What is needed of the trainer's client."""

    async def create(self, run_id: str, spec: RunSpec) -> RunInfo: ...

    async def wait(
        self, run_id: str, *, on_progress: Callable[[RunInfo], None] | None = None
    ) -> RunInfo: ...


@dataclass(frozen=True, slots=True)
class Trial:
    """A point that was trained."""

    run_id: str
    point: Point
    state: str
    """Of its run: `succeeded`, `failed`, `cancelled`; or `refused`, where none was made."""
    loss: float | None
    """The validation loss of its adapter, in nats per token; None where it has none."""
    seconds: float
    """Of training."""
    adapter_ref: str = ""
    reason: str = ""
    """Why it failed."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """All trials of a sweep."""

    trials: tuple[Trial, ...]
    """The best first; those without a loss last."""
    best: Hyperparameters | None
    """Of the best trial, as they were asked; None where no trial has a loss."""
    ended_by: str
    """Why no further trial was started: `search`, `trials` or `hours`."""


class Sweep:
    """A sweep under way.

    Args:
        base: what all trials share: data, adapter, base model, seed.
        loss_of: the validation loss of a run.
        on_change: called at each change of a run, and with its end.
    """

    def __init__(
        self,
        trainer: Trainer,
        spec: SweepSpec,
        search: Search,
        base: RunSpec,
        *,
        loss_of: Callable[[RunInfo], float | None],
        on_change: Callable[[RunInfo, Point], None] = lambda _run, _point: None,
    ) -> None:
        self._trainer = trainer
        self._spec = spec
        self._search = search
        self._base = base
        self._loss_of = loss_of
        self._on_change = on_change
        self._trials: dict[str, Trial] = {}

    async def run(self) -> SweepResult:
        """Trains until the search or the budget ends.

        Trials come in groups of `at_once`. A group is told to the search as a whole and in order,
        so that a sweep that is started again proposes the same.

        Raises:
            TuneproofError: the trainer refused a run, or cannot be reached.
        """
        proposed = known = 0
        while not (ended_by := self._over(proposed, known)):
            group: list[Proposal] = []
            while len(group) < self._spec.at_once and not self._over(proposed, known):
                proposal = self._search.propose()
                if proposal is None:
                    break
                group.append(proposal)
                proposed += 1
            if not group:
                ended_by = "search"
                break
            before = len(self._trials)
            for proposal, trial in zip(group, await self._group(group), strict=True):
                self._search.tell(proposal, trial.loss)
            known = 0 if len(self._trials) > before else known + len(group)
        return self._result(ended_by)

    def spec_at(self, point: Point) -> RunSpec:
        """The spec of a point's run.

        Raises:
            ValidationError: its hyper-parameters contradict one another.
        """
        return replace(self._base, hyperparameters=self._spec.at(point))

    def id_of(self, spec: RunSpec) -> str:
        """The id of a spec's run."""
        return f"{self._spec.sweep}-{spec.content_digest[:_DIGITS]}"

    def _over(self, proposed: int, known: int) -> str:
        """Why no further trial may begin; empty while one may."""
        budget = self._spec.budget
        if budget.trials is not None and proposed >= budget.trials:
            return "trials"
        spent = sum(each.seconds for each in self._trials.values())
        if budget.hours is not None and spent >= 3600 * budget.hours:
            return "hours"
        return "search" if known >= _MOST_KNOWN else ""

    async def _group(self, group: Sequence[Proposal]) -> list[Trial]:
        """Their trials, in their order."""
        try:
            async with asyncio.TaskGroup() as tasks:
                under_way = [tasks.create_task(self._trial(each.point)) for each in group]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [each.result() for each in under_way]

    async def _trial(self, point: Point) -> Trial:
        try:
            spec = self.spec_at(point)
        except ValidationError as error:
            return _refused("", point, error.errors(include_url=False)[0]["msg"])
        run_id = self.id_of(spec)
        try:
            return await self._train(run_id, spec, point)
        except InvalidInput as error:
            # Its own settings are wrong, such as a rank and a module; other points may be right.
            if not error.field.startswith("spec.hyperparameters"):
                raise
            trial = self._trials[run_id] = _refused(run_id, point, error.message)
            return trial

    async def _train(self, run_id: str, spec: RunSpec, point: Point) -> Trial:
        if run_id in self._trials:
            return self._trials[run_id]
        run = await self._trainer.create(run_id, spec)
        if not run.ended or run.state == "succeeded":
            # The run of the reply may lack its losses.
            run = await self._trainer.wait(
                run_id, on_progress=lambda now: self._on_change(now, point)
            )
        loss = self._loss_of(run) if run.state == "succeeded" else None
        trial = Trial(
            run_id=run_id,
            point=point,
            state=run.state,
            loss=loss if loss is not None and math.isfinite(loss) else None,
            seconds=run.seconds,
            adapter_ref=run.adapter_ref,
            reason=run.reason,
        )
        self._trials[run_id] = trial
        return trial

    def _result(self, ended_by: str) -> SweepResult:
        ranked = sorted(
            self._trials.values(),
            key=lambda each: (each.loss is None, each.loss or 0.0, each.run_id),
        )
        best = ranked[0] if ranked and ranked[0].loss is not None else None
        return SweepResult(tuple(ranked), self._spec.at(best.point) if best else None, ended_by)


def _refused(run_id: str, point: Point, reason: str) -> Trial:
    """A point that no run was made of."""
    return Trial(run_id, point, "refused", None, 0.0, reason=reason)
