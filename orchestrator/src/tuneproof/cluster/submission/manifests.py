"""The Job of a study, its volume, and the pod that reads its state when it has ended."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneproof.cluster.access import STORE_SECRET, TLS_SECRET
from tuneproof.cluster.api import Object
from tuneproof.cluster.submission.bundle import Bundle

PREFIX = "study-"
LABEL = "tuneproof.dev/study"
READER = "tuneproof.dev/reads"
DIGEST, OWNER, FILE, DATA, IMAGE = (
    f"tuneproof.dev/{name}" for name in ("digest", "owner", "file", "data", "image")
)
CONTAINER = "study"
PACKED, POD = "study.tar.gz", "pod.json"
STATE = "/state"
_MERGED = frozenset({"labels", "env", "envFrom", "volumeMounts", "volumes"})
BAD_INPUT, PARTLY = 2, 3
"""Exit codes after which another attempt would do the same."""
_FILES = f"{STATE}/study"
_USER = 10001
_ATTEMPTS = 6


@dataclass(frozen=True)
class Plan:
    """What the Job of a study is made of."""

    name: str
    owner: str
    digest: str
    """Of all that decides what it does."""
    bundle: Bundle
    image: str
    flags: tuple[str, ...]
    """Of `tuneproof study run`, after the file."""
    token_secret: str
    """Its key is `token`."""
    token: str = field(repr=False)
    """What it holds, where it is made for this study; else empty."""
    storage: str
    storage_class: str = ""
    secrets: tuple[str, ...] = ()
    """Their keys are variables, such as keys of API models."""
    claim: tuple[str, str] = ("", "")
    """The claim of the artifacts' volume and its path; empty where they are in S3."""
    encrypted: bool = False
    outside: bool = False
    """It calls HTTPS outside the cluster."""
    pod: Mapping[str, Any] = field(default_factory=dict)
    """More of its pods, as the cluster needs it: `labels`, `env`, `envFrom` and `volumeMounts` of
    each container, and parts of a pod's `spec`."""

    @property
    def labels(self) -> dict[str, str]:
        return {
            "app.kubernetes.io/name": "study",
            "app.kubernetes.io/part-of": "tuneproof",
            LABEL: self.name,
        }


def claim_of(plan: Plan) -> Object:
    """The volume of its state."""
    spec: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": plan.storage}},
    }
    spec |= {"storageClassName": plan.storage_class} if plan.storage_class else {}
    return _made("v1", "PersistentVolumeClaim", plan) | {"spec": spec}


def files_of(plan: Plan) -> Object:
    """The ConfigMap with the study's files."""
    return _made("v1", "ConfigMap", plan) | {
        "binaryData": {PACKED: b64encode(plan.bundle.packed).decode()},
        "data": {POD: json.dumps(dict(plan.pod))},
    }


def token_of(plan: Plan) -> Object:
    """A Secret with the token of who submits it."""
    return _made("v1", "Secret", plan) | {"stringData": {"token": plan.token}}


def job_of(plan: Plan) -> Object:
    """The Job. A pod that loses its node is replaced, and goes on from the state."""
    labels = {**plan.pod.get("labels", {}), **plan.labels, "tuneproof.dev/client": "true"}
    labels |= {"tuneproof.dev/egress": "https"} if plan.outside else {}
    rules = [
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": CONTAINER,
                "operator": "In",
                "values": [BAD_INPUT, PARTLY],
            },
        },
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    pod = _pod(plan, [_study(plan)], [_unpacking(plan), _snapshots(plan)], _volumes(plan))
    return _made("batch/v1", "Job", plan) | {
        "spec": {
            "backoffLimit": _ATTEMPTS,
            "podFailurePolicy": {"rules": rules},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        }
    }


def reader_of(plan: Plan, name: str, seconds: int) -> Object:
    """A pod that gives the state for some time."""
    container = _snapshots(plan)
    del container["restartPolicy"]
    volumes = [each for each in _volumes(plan) if each["name"] in ("state", "tmp")]
    spec = _pod(plan, [container], [], volumes)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {READER: name}},
        "spec": spec | {"activeDeadlineSeconds": seconds},
    }


def _made(version: str, kind: str, plan: Plan) -> Object:
    told = {
        OWNER: plan.owner,
        DIGEST: plan.digest,
        FILE: plan.bundle.study,
        DATA: plan.bundle.data,
        IMAGE: plan.image,
    }
    metadata = {"name": PREFIX + plan.name, "labels": plan.labels, "annotations": told}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _pod(
    plan: Plan, containers: list[Object], before: list[Object], volumes: list[Object]
) -> Object:
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": before,
        "containers": containers,
        "volumes": [*volumes, *plan.pod.get("volumes", ())],
    } | {key: value for key, value in plan.pod.items() if key not in _MERGED}


def _study(plan: Plan) -> Object:
    bundle = plan.bundle
    data = [f"--data={_FILES}/{bundle.data}"] if bundle.data else []
    file = f"{_FILES}/{bundle.study}"
    command = ["python", "-m", "tuneproof.cli.main", "study", "run", file]
    variables = {"TUNEPROOF_TOKEN_FILE": "/etc/tuneproof/token"}
    mounts = [
        *(_mount("state", STATE), _mount("token", "/etc/tuneproof", read_only=True)),
        *(_mount("tmp", "/tmp"), _mount("home", "/home/tuneproof")),  # noqa: S108
    ]
    if plan.encrypted:
        variables["TUNEPROOF_TLS_DIR"] = "/etc/tuneproof-tls"
        mounts.append(_mount("tls", "/etc/tuneproof-tls", read_only=True))
    if plan.claim[0]:
        mounts.append(_mount("artifacts", plan.claim[1]))
    sources: list[Object] = [{"secretRef": {"name": STORE_SECRET, "optional": True}}]
    sources += [{"secretRef": {"name": name}} for name in plan.secrets]
    return _container(
        plan,
        CONTAINER,
        [*command, f"--state={STATE}", *data, *plan.flags],
        mounts,
        resources=_LARGE,
        variables=variables,
        sources=sources,
    )


def _unpacking(plan: Plan) -> Object:
    command = ["python", "-m", "tarfile", "-e", f"/submitted/{PACKED}", _FILES]
    mounts = [_mount("state", STATE), _mount("submitted", "/submitted", read_only=True)]
    return _container(plan, "unpack", command, mounts, resources=_SMALL)


def _snapshots(plan: Plan) -> Object:
    """Beside the study, and ended with it."""
    command = ["python", "-m", "tuneproof.study.state.snapshots", STATE]
    mounts = [_mount("state", STATE), _mount("tmp", "/tmp")]  # noqa: S108
    return _container(plan, "snapshots", command, mounts, resources=_SMALL) | {
        "restartPolicy": "Always"
    }


_LARGE = {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "4Gi"}}
_SMALL = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}}


def _container(
    plan: Plan,
    name: str,
    command: list[str],
    mounts: list[Object],
    *,
    resources: Object,
    variables: Mapping[str, str] = {},
    sources: Sequence[Object] = (),
) -> Object:
    listed = [{"name": key, "value": value} for key, value in variables.items()]
    return {
        "name": name,
        "image": plan.image,
        "command": command,
        "env": [*listed, *plan.pod.get("env", ())],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": resources,
        "volumeMounts": [*mounts, *plan.pod.get("volumeMounts", ())],
        "envFrom": [*sources, *plan.pod.get("envFrom", ())],
    }


def _volumes(plan: Plan) -> list[Object]:
    mine = PREFIX + plan.name
    found: list[Object] = [
        {"name": "state", "persistentVolumeClaim": {"claimName": mine}},
        {"name": "submitted", "configMap": {"name": mine}},
        {"name": "token", "secret": {"secretName": plan.token_secret, "defaultMode": 0o440}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "home", "emptyDir": {}},
    ]
    if plan.encrypted:
        found.append({"name": "tls", "secret": {"secretName": TLS_SECRET, "defaultMode": 0o440}})
    if plan.claim[0]:
        claim = {"claimName": plan.claim[0]}
        found.append({"name": "artifacts", "persistentVolumeClaim": claim})
    return found


def _mount(name: str, path: str, *, read_only: bool = False) -> Object:
    return {"name": name, "mountPath": path} | ({"readOnly": True} if read_only else {})
