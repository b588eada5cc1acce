"""Workers as Jobs of a Kubernetes cluster; they go on when the service that made them stops."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import structlog

from tuneproof.servicekit.errors import InvalidInput, Unavailable
from tuneproof_trainer.execution.cluster import Cluster
from tuneproof_trainer.execution.jobs import Placement, job_for, name_of
from tuneproof_trainer.execution.protocol import Attempt
from tuneproof_trainer.execution.states import ending, has_ended, waiting
from tuneproof_trainer.record import (
    Heartbeat,
    Job,
    RunState,
    RunStatus,
    WorkerEnding,
    WorkerResult,
)
from tuneproof_trainer.runs.store import RunStore

_PATIENCE_SECONDS = 30.0
"""How long another trainer may take from an attempt's beginning to its Job."""

_log = structlog.get_logger(__name__)


class KubernetesExecutor:
    """One Job an attempt, followed by every trainer on the store.

    Args:
        poll_seconds: between two looks at a Job.
    """

    name = "kubernetes"
    outlives_service = True

    def __init__(
        self, store: RunStore, cluster: Cluster, placement: Placement, *, poll_seconds: float = 2.0
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._placement = placement
        self._poll = poll_seconds
        self._waits: dict[str, str] = {}

    async def check(self, sample: Job) -> None:
        """Asks the cluster whether it would take the Job of a run.

        Raises:
            InvalidInput: when it would not: rights, quota, a field that Kubernetes does not know.
        """
        status = RunStatus(id="check", state=RunState.RUNNING, create_time=datetime.now(UTC))
        manifest = job_for(Attempt(status, sample), self._placement)
        try:
            await asyncio.to_thread(self._cluster.create, manifest, dry_run=True)
        except Unavailable as error:  # Runs wait until it answers.
            _log.warning("cluster not asked", error=error.message)

    async def execute(self, attempt: Attempt) -> WorkerResult:
        if attempt.job is None:
            raise ValueError("an attempt that is started needs its job")
        await asyncio.to_thread(self._store.write, attempt.job, attempt.run_id, attempt.number)
        return await self.follow(attempt)

    async def follow(self, attempt: Attempt) -> WorkerResult:
        since, seen, said = time.monotonic(), False, ""
        try:
            while True:
                try:
                    result = await asyncio.to_thread(self._look, attempt, since, seen)
                    seen, said = True, ""
                except (InvalidInput, Unavailable) as error:
                    # Whoever runs the cluster may mend it: the run waits, and says for what.
                    result, self._waits[attempt.run_id] = None, error.message
                    if error.message != said:
                        _log.warning("worker waits", run=attempt.run_id, error=error.message)
                    said = error.message
                if result is not None:
                    return result
                await asyncio.sleep(self._poll)
        except asyncio.CancelledError:
            if not attempt.saves:  # Cancelled, lost or taken over; a stopping service leaves it.
                await asyncio.to_thread(self._delete, attempt)
            raise
        finally:
            self._waits.pop(attempt.run_id, None)

    def can_follow(self, status: RunStatus, heartbeat: Heartbeat | None) -> bool:  # noqa: ARG002
        return status.executor == self.name

    def waits_for(self, attempt: Attempt) -> str | None:
        return self._waits.get(attempt.run_id, "")

    def _look(self, attempt: Attempt, since: float, seen: bool) -> WorkerResult | None:
        """Makes the Job where it is missing; how its worker ended, or None.

        Args:
            since: when this trainer began to follow.
            seen: whether the Job was there before.
        """
        name = name_of(attempt.status)
        job = self._cluster.job(name)
        # A worker writes its result before its pod ends, so it is read after the Job.
        result = self._store.read(WorkerResult, attempt.run_id, attempt.number)
        if result is not None and result.ending is not WorkerEnding.STOPPED:
            return result
        if job is None:
            return result or self._make(attempt, since, seen)
        pods = self._cluster.pods(name)
        if result is None and not has_ended(job):
            self._waits[attempt.run_id] = waiting(job, pods) or self._warning(name, pods)
            return None
        if job.spec.suspend:  # Its queue would start it again, with a number that is used up.
            self._cluster.delete(name)
        memory = self._placement.pods.profile.limits.get("memory", "")
        return ending(job, pods, memory)

    def _make(self, attempt: Attempt, since: float, seen: bool) -> WorkerResult | None:
        begun = seen or self._store.read(Heartbeat, attempt.run_id, attempt.number)
        work = self._store.read(Job, attempt.run_id, attempt.number)
        if work is None and not begun and time.monotonic() - since < _PATIENCE_SECONDS:
            raise Unavailable("the trainer that took it has not made its Job yet")
        if work is None or begun:
            # A second pod of this attempt could meet the first: the next attempt fences it.
            reason = "its Job was deleted" if begun else "no Job was made for it"
            return WorkerResult(ending=WorkerEnding.RETRY, reason=reason)
        self._cluster.create(job_for(Attempt(attempt.status, work), self._placement))
        return None

    def _warning(self, name: str, pods: list[Any]) -> str:
        """Why there is no pod, or why the first one does not begin."""
        if any(pod.status.phase == "Running" for pod in pods):
            return ""
        return self._cluster.warning(pods[0].metadata.name if pods else name)

    def _delete(self, attempt: Attempt) -> None:
        try:
            self._cluster.delete(name_of(attempt.status))
        except (InvalidInput, Unavailable) as error:
            # Its worker stops at its next heartbeat, for the run is not its own any more.
            _log.warning("Job not deleted", run=attempt.run_id, error=error.message)
