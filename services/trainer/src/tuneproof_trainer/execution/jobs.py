"""The manifest of the Job that runs one attempt's worker.

A Job is one attempt: it never makes a second pod for the same work. What may help again is begun by
the run's queue, as another Job with the next attempt number, which fences the workers before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from tuneproof_trainer.execution.environment import variables_for
from tuneproof_trainer.execution.profiles import Pods
from tuneproof_trainer.execution.protocol import Attempt
from tuneproof_trainer.record import EXIT_CODES, Job, RunStatus, WorkerEnding

USER = 10001
CONTAINER = "worker"
ACCOUNT = "trainer-worker"
"""The service account of workers' pods, without rights."""
RUN_LABEL = "tuneproof.dev/run"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
WORKERS = "trainer-workers"
"""The headless service under which the pods of one Job find each other."""


@dataclass(frozen=True)
class Placement:
    """What all workers' Jobs have in common."""

    image: str
    pods: Pods
    namespace: str
    queue: str = ""
    """Kueue's LocalQueue; the Job is made suspended, and Kueue starts it. Empty: none."""
    grace_seconds: float = 120
    """From SIGTERM to SIGKILL: time to save a checkpoint."""
    kept_seconds: int = 3600
    """How long a finished Job stays to be looked at."""


def name_of(status: RunStatus) -> str:
    """Of an attempt's Job, the same for every trainer. A pod's name and host name are made of it,
    so it is short; the time tells runs apart that have one id in two stores."""
    told = sha256(f"{status.id} {status.create_time.isoformat()}".encode()).hexdigest()[:8]
    return f"run-{status.id[:36]}-{told}-{status.attempt}"


def job_for(attempt: Attempt, placement: Placement) -> dict[str, Any]:
    """The Job of an attempt, whose job is known."""
    if attempt.job is None:
        raise ValueError("an attempt that is started needs its job")
    name, nodes, pods = name_of(attempt.status), attempt.job.nodes, placement.pods
    labels = {
        "app.kubernetes.io/name": "trainer-worker",
        "app.kubernetes.io/part-of": "tuneproof",
        RUN_LABEL: attempt.run_id.rstrip("-"),
    }
    pod = _pod(attempt.job, attempt.number, placement)
    several: dict[str, Any] = {}
    if nodes > 1:
        several = {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes}
        pod["subdomain"] = WORKERS
        head = {"name": "MASTER_ADDR", "value": f"{name}-0.{WORKERS}"}
        pod["containers"][0]["env"].append(head)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": placement.namespace,
            "labels": labels | ({QUEUE_LABEL: placement.queue} if placement.queue else {}),
        },
        "spec": {
            "suspend": bool(placement.queue),
            "backoffLimit": 0,
            # Every failure ends the Job; the rules make its condition say which kind it was.
            "podFailurePolicy": {"rules": _rules()},
            "ttlSecondsAfterFinished": placement.kept_seconds,
            **several,
            "template": {"metadata": {"labels": pods.parts.labels | labels}, "spec": pod},
        },
    }


def _rules() -> list[dict[str, Any]]:
    told = sorted(code for ending, code in EXIT_CODES.items() if ending is not WorkerEnding.DONE)
    exits = {"containerName": CONTAINER, "operator": "In", "values": told}
    return [
        {
            "action": "FailJob",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
        {"action": "FailJob", "onExitCodes": exits},
    ]


def _pod(job: Job, attempt: int, placement: Placement) -> dict[str, Any]:
    profile, parts = placement.pods.profile, placement.pods.parts
    devices = {profile.resource: str(job.devices)} if profile.resource else {}
    writable: dict[str, dict[str, Any]] = {
        "/tmp": {},  # noqa: S108 - in the pod
        "/home/tuneproof": {},
        "/dev/shm": {"medium": "Memory", "sizeLimit": profile.shared_memory},  # noqa: S108
    }
    names = {path: path.rpartition("/")[2] for path in writable}
    variables = variables_for(job)
    return {
        "restartPolicy": "Never",
        "serviceAccountName": ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": round(placement.grace_seconds),
        "nodeSelector": profile.node_selector,
        "tolerations": list(profile.tolerations),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": CONTAINER,
                "image": placement.image,
                "command": ["python", "-m", "tuneproof_trainer.worker"],
                "args": [job.artifacts, job.run_id, str(attempt)],
                "env": [
                    *({"name": name, "value": value} for name, value in variables.items()),
                    *parts.env,
                ],
                "envFrom": list(parts.env_from),
                "resources": {
                    "requests": {**profile.requests, **devices},
                    "limits": {**profile.limits, **devices},
                },
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    *({"name": names[path], "mountPath": path} for path in writable),
                    *parts.volume_mounts,
                ],
            }
        ],
        "volumes": [
            *({"name": names[path], "emptyDir": empty} for path, empty in writable.items()),
            *parts.volumes,
        ],
    }
