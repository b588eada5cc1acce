"""The manifest of the Job that runs one attempt's worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuneproof_trainer.execution.profiles import Profile
from tuneproof_trainer.execution.protocol import Attempt
from tuneproof_trainer.record import EXIT_CODES, WorkerEnding

USER = 10001
CONTAINER = "worker"
RUN_LABEL = "tuneproof.run"
ATTEMPT_LABEL = "tuneproof.attempt"
_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


@dataclass(frozen=True)
class Placement:
    """What all workers' Jobs have in common."""

    image: str
    profile: Profile
    namespace: str = "tuneproof"
    service_account: str = "trainer-worker"
    devices: int = 1
    queue: str = ""
    """Kueue's LocalQueue; the Job is made suspended, and Kueue starts it. Empty: none."""
    grace_seconds: int = 120
    """From SIGTERM to SIGKILL: time to save a checkpoint."""
    kept_seconds: int = 3600
    """How long a finished Job stays to be looked at."""
    evictions: int = 6
    """How often the pod of an attempt is made again."""
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    """Secrets whose keys become variables, as the keys of S3."""
    volumes: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    """Claims by mount path, and whether they are read-only."""


def name_of(run_id: str, attempt: int) -> str:
    """The Job's name: that of a run may have 63 characters, and so may a label."""
    return f"run-{run_id[:46]}-{attempt}".rstrip("-")


def job_for(attempt: Attempt, placement: Placement) -> dict[str, Any]:
    """The Job of an attempt.

    Exit codes decide by podFailurePolicy: bad input and a told stop fail the Job at once; an
    eviction costs no retry; all else is retried by the same attempt, from its last checkpoint.
    """
    labels = {
        "app.kubernetes.io/name": "trainer-worker",
        "app.kubernetes.io/part-of": "tuneproof",
        RUN_LABEL: attempt.run_id,
        ATTEMPT_LABEL: str(attempt.number),
    }
    metadata: dict[str, Any] = {
        "name": name_of(attempt.run_id, attempt.number),
        "namespace": placement.namespace,
        "labels": labels | ({_QUEUE_LABEL: placement.queue} if placement.queue else {}),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "suspend": bool(placement.queue),
            "backoffLimit": placement.evictions,
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": placement.kept_seconds,
            "podFailurePolicy": {"rules": _rules()},
            "template": {
                "metadata": {"labels": labels},
                "spec": _pod(attempt, placement),
            },
        },
    }


def _rules() -> list[dict[str, Any]]:
    final = sorted((EXIT_CODES[WorkerEnding.BAD_INPUT], EXIT_CODES[WorkerEnding.STOPPED]))
    return [
        {
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": final},
        },
    ]


def _pod(attempt: Attempt, placement: Placement) -> dict[str, Any]:
    profile = placement.profile
    devices = {profile.device_resource: str(placement.devices)} if profile.device_resource else {}
    mounts = [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - in the pod
        {"name": "home", "mountPath": "/home/tuneproof"},
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - in the pod
    ]
    volumes: list[dict[str, Any]] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "home", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": profile.shared_memory}},
    ]
    for number, (path, (claim, read_only)) in enumerate(sorted(placement.volumes.items())):
        mounts.append({"name": f"claim-{number}", "mountPath": path, "readOnly": read_only})
        volumes.append(
            {
                "name": f"claim-{number}",
                "persistentVolumeClaim": {"claimName": claim, "readOnly": read_only},
            }
        )
    if attempt.job is None:
        raise ValueError("an attempt that is started needs its job")
    return {
        "restartPolicy": "Never",
        "serviceAccountName": placement.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": placement.grace_seconds,
        "nodeSelector": dict(profile.node_selector),
        "tolerations": [dict(each) for each in profile.tolerations],
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
                "args": [attempt.job.artifacts, attempt.run_id, str(attempt.number)],
                "env": [
                    {"name": name, "value": value}
                    for name, value in sorted(placement.environment.items())
                ],
                "envFrom": [{"secretRef": {"name": name}} for name in placement.secrets],
                "resources": {
                    "requests": {**profile.requests, **devices},
                    "limits": {**profile.limits, **devices},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }
