"""Why a pod is not Ready, in the words of scheduler, kubelet and container."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tuneproof.cluster.api import Cluster, Object, Refused
from tuneproof.cluster.pods import is_ready

_PULLS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_LAST_LINES = 3


@dataclass(frozen=True, slots=True)
class Trouble:
    """What keeps a pod from being Ready."""

    pod: str
    reason: str
    """One word: `Unschedulable`, `OOMKilled`, `ImagePullBackOff`, `FailedMount`, `NotReady` …"""
    detail: str
    """In words, with the pod's name."""
    advice: str = ""


def troubles_of(cluster: Cluster, pods: Iterable[Object]) -> list[Trouble]:
    """One for each pod that is not Ready; of a Job's pods that has ended, none."""
    return [
        _trouble_of(cluster, pod)
        for pod in pods
        if not is_ready(pod) and pod["status"].get("phase") != "Succeeded"
    ]


def why_not_ready(cluster: Cluster, pods: Iterable[Object]) -> str:
    """What keeps pods from being Ready, in words; empty where nothing does."""
    return "; ".join(one.detail for one in troubles_of(cluster, pods))


def _trouble_of(cluster: Cluster, pod: Object) -> Trouble:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            reason = condition.get("reason", "Unschedulable")
            detail = f"{name} is not scheduled: {condition.get('message', reason)}"
            return Trouble(name, reason, detail, "free resources, or change its requests")
    states = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    for one in states:
        if trouble := _of_container(cluster, name, one):
            return trouble
    started = any("running" in one.get("state", {}) for one in states)
    if not started and (warning := next(warnings_of(cluster, name), None)):
        reason, why = warning
        advice = "make what it mounts" if reason == "FailedMount" else ""
        return Trouble(name, reason, f"{name} waits: {why}", advice)
    if "deletionTimestamp" in pod["metadata"]:
        return Trouble(name, "Terminating", f"{name} ends")
    return Trouble(
        name,
        "NotReady",
        f"{name} is {status.get('phase', 'Pending')}, and its service is not ready yet",
        f"kubectl --namespace {cluster.namespace} logs {name}",
    )


def _of_container(cluster: Cluster, pod: str, status: Object) -> Trouble | None:
    state, before = status.get("state", {}), status.get("lastState", {})
    waiting = state.get("waiting", {})
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _PULLS:
        advice = "build or push the image, or correct `images:` in the overlay"
        return Trouble(pod, reason, f"{pod}: the image {status['image']} is not there", advice)
    if reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        return Trouble(pod, reason, f"{pod}: {message}", "make it, or correct the overlay")
    ended = state.get("terminated") or before.get("terminated")
    if not ended or status.get("ready") or not ended.get("exitCode"):
        return None
    if ended.get("reason") == "OOMKilled":
        advice = "raise its memory limit, or lower what it holds: docs/operations.md"
        detail = f"{pod} was ended for its memory (OOMKilled), {status['restartCount']} restarts"
        return Trouble(pod, "OOMKilled", detail, advice)
    said = ended.get("message", "") or _last_words(
        cluster, pod, status["name"], previous="terminated" not in state
    )
    detail = f"{pod} ended with {ended['exitCode']}, {status['restartCount']} restarts"
    return Trouble(pod, reason or "Error", f"{detail}{f': {said}' if said else ''}")


def warnings_of(cluster: Cluster, name: str) -> Iterator[tuple[str, str]]:
    """Reason and message of the warnings about an object, the newest first; none where this user
    must not see them."""
    for event in _events(cluster, f"involvedObject.name={name},type=Warning"):
        yield event["reason"], event["message"]


def latest(cluster: Cluster, reason: str) -> Iterator[tuple[str, str, str]]:
    """Kind, name and message of the objects that have a warning of a reason, each once."""
    seen = set()
    for event in _events(cluster, f"reason={reason},type=Warning"):
        about = event["involvedObject"]
        if (about["kind"], about["name"]) not in seen:
            seen.add((about["kind"], about["name"]))
            yield about["kind"], about["name"], event["message"]


def _events(cluster: Cluster, chosen: str) -> list[Object]:
    try:
        found = cluster.ask("GET", cluster.path("events"), {"fieldSelector": chosen})["items"]
    except Refused:
        return []
    return sorted(found, key=_time_of, reverse=True)


def _time_of(event: Object) -> str:
    return str(event.get("lastTimestamp") or event["metadata"]["creationTimestamp"])


def _last_words(cluster: Cluster, pod: str, container: str, *, previous: bool) -> str:
    """The end of what a container said before it ended."""
    try:
        lines = cluster.log(pod, container, last=_LAST_LINES, previous=previous).splitlines()
    except Refused:
        return ""
    return lines[-1].strip() if lines else ""
