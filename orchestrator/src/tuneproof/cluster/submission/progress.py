"""How the Job of a study is, and what its pods say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tuneproof.cluster.api import Cluster, Object
from tuneproof.cluster.pods import is_ready
from tuneproof.cluster.submission.manifests import CONTAINER, PARTLY, PREFIX
from tuneproof.cluster.troubles import why_not_ready

State = Literal["waits", "runs", "done", "partly", "failed", "cancelled"]
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """A Job at a moment."""

    state: State
    """`partly`: it ended, and something failed on the way; `cancelled`: it has no Job."""
    detail: str = ""
    """Why it waits or failed, in words."""

    @property
    def ended(self) -> bool:
        return self.state not in ("waits", "runs")


def progress_of(cluster: Cluster, name: str) -> Progress:
    """How the Job of a study is now."""
    job = cluster.get("jobs", PREFIX + name)
    if job is None:
        return Progress("cancelled")
    conditions = {
        one["type"]: one for one in job["status"].get("conditions", ()) if one["status"] == "True"
    }
    if "Complete" in conditions:
        return Progress("done")
    pods = pods_of(cluster, name)
    if failed := conditions.get("Failed"):
        if f"exit code {PARTLY}" in failed.get("message", ""):
            return Progress("partly")
        return Progress("failed", why_not_ready(cluster, pods[-1:]) or failed.get("message", ""))
    if pods and is_ready(pods[-1]):
        return Progress("runs")
    return Progress("waits", why_not_ready(cluster, pods[-1:]))


def pods_of(cluster: Cluster, name: str) -> list[Object]:
    """The pods of its Job, the newest last."""
    pods = cluster.list("pods", selector_of(name))
    return sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])


def selector_of(name: str) -> str:
    """The label of its Job's pods."""
    return f"batch.kubernetes.io/job-name={PREFIX}{name}"


def lines(cluster: Cluster, name: str, *, follow: bool) -> Iterator[str]:
    """What the study says: of its newest pod so far, or of each until the Job has ended."""
    read: set[str] = set()
    told = ""
    while True:
        now = progress_of(cluster, name)
        for pod in pods_of(cluster, name)[-1:]:
            pod_name = pod["metadata"]["name"]
            if pod_name in read or not _has_begun(pod):
                continue
            read.add(pod_name)
            if follow and not now.ended:
                for piece in cluster.follow(pod_name, CONTAINER):
                    yield piece.decode("utf-8", "replace")
            else:
                yield cluster.log(pod_name, CONTAINER)
        if now.ended or not follow:
            return
        if now.detail and now.detail != told:
            told = now.detail
            yield f"{told}\n"
        time.sleep(_LOOK_SECONDS)


def _has_begun(pod: Object) -> bool:
    states = pod["status"].get("containerStatuses", ())
    return any("waiting" not in one["state"] for one in states if one["name"] == CONTAINER)
