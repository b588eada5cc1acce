"""Workers as Jobs of a Kubernetes cluster; they go on when the service that made them stops."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from tuneproof.servicekit.errors import Unavailable
from tuneproof_trainer.execution.jobs import (
    ATTEMPT_LABEL,
    CONTAINER,
    RUN_LABEL,
    Placement,
    job_for,
    name_of,
)
from tuneproof_trainer.execution.protocol import Attempt, by_exit_code
from tuneproof_trainer.record import Heartbeat, RunStatus, WorkerEnding, WorkerResult
from tuneproof_trainer.runs.store import RunStore

_LOST = 404
_EXISTS = 409
_log = structlog.get_logger(__name__)


class KubernetesExecutor:
    """One Job an attempt.

    Args:
        poll_seconds: between two looks at a Job.
    """

    name = "kubernetes"
    outlives_service = True

    def __init__(self, store: RunStore, placement: Placement, *, poll_seconds: float = 5.0) -> None:
        try:
            config.load_incluster_config()
        except config.ConfigException:
            config.load_kube_config()
        self._store = store
        self._placement = placement
        self._poll = poll_seconds
        self._jobs = client.BatchV1Api()
        self._pods = client.CoreV1Api()

    async def execute(self, attempt: Attempt) -> WorkerResult:
        await asyncio.to_thread(self._store.write, attempt.job, attempt.run_id, attempt.number)
        try:
            await asyncio.to_thread(
                self._jobs.create_namespaced_job,
                self._placement.namespace,
                job_for(attempt, self._placement),
            )
        except ApiException as error:
            if error.status != _EXISTS:
                raise Unavailable(
                    f"the cluster takes no Job: {error.reason}: {error.body}"
                ) from error
        return await self.follow(attempt)

    async def follow(self, attempt: Attempt) -> WorkerResult:
        try:
            while True:
                ended = await self._ended(attempt)
                if ended is not None:
                    return ended
                await asyncio.sleep(self._poll)
        except asyncio.CancelledError:
            if not attempt.saves:  # Cancelled, lost or taken over; a stopping service leaves it.
                await asyncio.to_thread(self._delete, attempt)
            raise

    def can_follow(self, status: RunStatus, heartbeat: Heartbeat | None) -> bool:  # noqa: ARG002
        return status.executor == self.name

    def is_waiting(self, status: RunStatus) -> bool:
        return status.executor == self.name

    async def _ended(self, attempt: Attempt) -> WorkerResult | None:
        result = await asyncio.to_thread(
            self._store.read, WorkerResult, attempt.run_id, attempt.number
        )
        if result is not None:
            return result
        try:
            job = await asyncio.to_thread(
                self._jobs.read_namespaced_job,
                name_of(attempt.run_id, attempt.number),
                self._placement.namespace,
            )
        except ApiException as error:
            if error.status != _LOST:
                _log.warning("Job not read", run=attempt.run_id, error=str(error.reason))
                return None
            reason = "its Job was deleted"
            return WorkerResult(ending=WorkerEnding.RETRY, reason=reason)
        for condition in job.status.conditions or ():
            if condition.type == "Failed" and condition.status == "True":
                return await asyncio.to_thread(self._from_pods, attempt, condition)
        return None

    def _from_pods(self, attempt: Attempt, condition: Any) -> WorkerResult:
        selector = f"{RUN_LABEL}={attempt.run_id},{ATTEMPT_LABEL}={attempt.number}"
        pods = self._pods.list_namespaced_pod(
            self._placement.namespace, label_selector=selector
        ).items
        for pod in sorted(pods, key=lambda each: each.metadata.creation_timestamp, reverse=True):
            for status in pod.status.container_statuses or ():
                ended = status.state.terminated
                if status.name != CONTAINER or ended is None:
                    continue
                if ended.reason == "OOMKilled":
                    return WorkerResult(
                        ending=WorkerEnding.BAD_INPUT,
                        reason="the pod's memory ran out (OOMKilled); raise the profile's memory"
                        " limit, or lower micro_batch_size or max_length",
                    )
                if ended.exit_code:
                    return by_exit_code(ended.exit_code, (ended.message or "").strip())
        return WorkerResult(
            ending=WorkerEnding.RETRY, reason=f"{condition.reason}: {condition.message}"
        )

    def _delete(self, attempt: Attempt) -> None:
        try:
            self._jobs.delete_namespaced_job(
                name_of(attempt.run_id, attempt.number),
                self._placement.namespace,
                propagation_policy="Foreground",
            )
        except ApiException as error:
            if error.status != _LOST:
                _log.warning("Job not deleted", run=attempt.run_id, error=str(error.reason))
