"""What a Job and its pods say of a worker: what it waits for, and how it ended."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from typing import Any

from tuneproof_trainer.execution.jobs import CONTAINER, QUEUE_LABEL
from tuneproof_trainer.execution.protocol import by_exit_code, by_signal
from tuneproof_trainer.record import EXIT_CODES, WorkerEnding, WorkerResult
from tuneproof_trainer.runs.store import last_words

_SIGNALS = frozenset(signal.Signals)
_BEGINNING = frozenset({"ContainerCreating", "PodInitializing"})
_OWN_FAULT = "TerminationByKubelet"
"""The reason of an eviction because the node ran out of something, maybe by this very pod."""


def has_ended(job: Any) -> bool:
    """Whether a Job has ended, with all its pods."""
    return any(_conditions(job, "Complete", "Failed"))


def waiting(job: Any, pods: Iterable[Any]) -> str:
    """What keeps a Job's pods from running; empty where they do not say."""
    if job.spec.suspend:
        queue = (job.metadata.labels or {}).get(QUEUE_LABEL, "")
        return f"the queue {queue} has not admitted it" if queue else "its Job is suspended"
    for pod in pods:
        for condition in _conditions(pod, "PodScheduled", status="False"):
            told, _, _ = (condition.message or condition.reason).partition(" preemption:")
            return f"no node takes it: {told}"
        for status in pod.status.container_statuses or ():
            held = status.state.waiting
            if held is not None and held.reason not in _BEGINNING:
                return ": ".join(filter(None, (held.reason, held.message)))
    return ""


def ending(job: Any, pods: Iterable[Any], memory: str) -> WorkerResult:
    """How a worker ended that wrote no result, or was told to stop.

    Args:
        memory: the limit that its pod had, for people.
    """
    # Where one of several pods fails, the others are stopped: the first is the cause.
    for pod in sorted(pods, key=_end_time):
        if found := _ending_of(pod, memory):
            return found
    for condition in _conditions(job, "Failed", "FailureTarget"):
        evicted = "DisruptionTarget" in condition.message  # The pod is gone; its rule tells.
        return WorkerResult(
            ending=WorkerEnding.STOPPED if evicted else WorkerEnding.RETRY,
            reason=f"{'evicted' if evicted else condition.reason}: {condition.message}",
        )
    if job.spec.suspend:
        return WorkerResult(ending=WorkerEnding.STOPPED, reason="its Job was suspended")
    if has_ended(job):
        return by_exit_code(0, "")
    return WorkerResult(ending=WorkerEnding.STOPPED, reason="the worker was told to stop")


def _ending_of(pod: Any, memory: str) -> WorkerResult | None:
    ended = _terminated(pod)
    if ended is not None and ended.reason == "OOMKilled":
        return WorkerResult(
            ending=WorkerEnding.BAD_INPUT,
            reason=f"the pod's memory ran out (OOMKilled): raise limits.memory of its profile, now"
            f" {memory or 'none'}, or lower micro_batch_size or max_length",
        )
    for condition in _conditions(pod, "DisruptionTarget"):
        own = condition.reason == _OWN_FAULT
        return WorkerResult(
            ending=WorkerEnding.RETRY if own else WorkerEnding.STOPPED,
            reason=f"evicted: {condition.message or condition.reason}",
        )
    if ended is None or ended.exit_code in (0, EXIT_CODES[WorkerEnding.STOPPED]):
        return None
    if ended.exit_code - 128 in _SIGNALS:
        return by_signal(ended.exit_code - 128)
    if ended.exit_code > 128:  # No exit code of a worker; 255 where the node lost the container.
        return WorkerResult(
            ending=WorkerEnding.RETRY,
            reason=f"its container ended with exit code {ended.exit_code} ({ended.reason})",
        )
    return by_exit_code(ended.exit_code, last_words((ended.message or "").encode()))


def _terminated(pod: Any) -> Any:
    for status in pod.status.container_statuses or ():
        if status.name == CONTAINER:
            return status.state.terminated
    return None


def _end_time(pod: Any) -> str:
    ended = _terminated(pod)
    at = ended and ended.finished_at
    return at.isoformat() if at else "~"  # After all times.


def _conditions(thing: Any, *types: str, status: str = "True") -> Iterator[Any]:
    for condition in thing.status.conditions or ():
        if condition.type in types and condition.status == status:
            yield condition
