"""What `tuneproof doctor --context` examines, one function each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from tuneproof.cli.checkup import Finding, State, checked
from tuneproof.sdk import (
    SERVICES,
    GeneratorClient,
    JudgeClient,
    RetrieverClient,
    TrainerClient,
)
from tuneproof.sdk.client import Client
from tuneproof.servicekit.errors import (
    Forbidden,
    InvalidInput,
    TuneproofError,
    Unauthenticated,
    WrongState,
)

if TYPE_CHECKING:
    from tuneproof.cluster import Cluster, Reach
    from tuneproof.cluster.services import Service

_GPU = "nvidia.com/gpu"
_RIGHTS = (
    ("list", "pods", "", "to find the services", True),
    ("list", "services", "", "to find the services", True),
    ("get", "pods", "portforward", "to call them", True),
    ("create", "pods", "portforward", "to call them", True),
    ("get", "secrets", "", "to take token and certificate from them", False),
    ("create", "jobs", "", "for `study submit`", False),
    ("create", "persistentvolumeclaims", "", "for `study submit`", False),
    ("create", "configmaps", "", "for `study submit`", False),
    ("create", "pods", "", "to read the state of a study that has ended", False),
)
_SECRETS = {"tuneproof-tokens": {"tokens", "judge-api-key"}}
_RESTRICTED = "pod-security.kubernetes.io/enforce"
_ASK: dict[type[Client], Callable[[Any], Awaitable[object]]] = {
    RetrieverClient: lambda one: one.list(),
    GeneratorClient: lambda one: one.pool(),
    TrainerClient: lambda one: one.list(),
    JudgeClient: lambda one: one.rubrics(),
}


def findings(reach: Reach) -> Iterator[Finding]:
    """Everything, in the order in which one thing needs the other."""
    cluster = reach.cluster
    yield _server(cluster)
    yield from _rights(cluster)
    yield from _secrets(cluster)
    yield from _claims(cluster)
    yield from _services(reach)
    yield from _pods_refused(cluster)
    yield from _gpus(cluster)
    yield from _policies(cluster)
    yield _artifacts(reach)


def _server(cluster: Cluster) -> Finding:
    version = cluster.ask("GET", "/version")["gitVersion"]
    return Finding("cluster", "ok", f"Kubernetes {version}, {cluster.place}")


def _rights(cluster: Cluster) -> Iterator[Finding]:
    for verb, kind, part, purpose, needed in _RIGHTS:
        what = f"{verb} {kind}{'/' if part else ''}{part}"
        allowed = cluster.may(verb, kind, part)
        yield checked(
            f"right to {what}",
            allowed,
            purpose if allowed else f"not given; {purpose}",
            f"ask an administrator for it in {cluster.namespace}",
            otherwise="missing" if needed else "note",
        )


def _secrets(cluster: Cluster) -> Iterator[Finding]:
    for name, keys in _SECRETS.items():
        try:
            found = cluster.get("secrets", name)
        except InvalidInput:
            yield Finding(f"secret {name}", "note", "not for this user to read")
            continue
        lacking = sorted(keys - set((found or {}).get("data") or {}))
        detail = "not there" if found is None else f"lacks {', '.join(lacking)}"
        yield checked(
            f"secret {name}",
            not lacking,
            detail if lacking else ", ".join(sorted(keys)),
            "deploy/k8s/README.md has the command",
            otherwise="missing",
        )


def _claims(cluster: Cluster) -> Iterator[Finding]:
    from tuneproof.cluster.troubles import warnings_of  # noqa: PLC0415 - an extra

    for claim in cluster.list("persistentvolumeclaims"):
        if (phase := claim["status"].get("phase")) == "Bound":
            continue
        name = claim["metadata"]["name"]
        _, why = next(warnings_of(cluster, name), ("", "no pod has asked for it yet"))
        advice = "give the claim a class that the cluster has"
        yield Finding(f"volume {name}", "warning", f"{phase}: {why}", advice)


def _services(reach: Reach) -> Iterator[Finding]:
    try:
        services = reach.services
    except TuneproofError as error:
        yield Finding(
            "services", "missing", error.message, "kubectl apply -k deploy/k8s/overlays/…"
        )
        return
    for role in SERVICES:
        mine = [one for one in services if one.role == role]
        if not mine:
            yield Finding(f"service {role}", "missing", "not there", "add it to the overlay")
        for service in mine:
            yield from _service(reach, service)


def _service(reach: Reach, service: Service) -> Iterator[Finding]:
    from tuneproof.cluster.troubles import troubles_of  # noqa: PLC0415 - an extra

    ready = len(service.ready)
    detail = f"{ready} of {len(service.pods)} pods Ready, {', '.join(service.images)}"
    bad: State = "warning" if ready else "missing"
    whole = bool(service.pods) and ready == len(service.pods)
    yield checked(f"service {service.name}", whole, detail, "see its pods", otherwise=bad)
    for one in troubles_of(reach.cluster, service.pods):
        yield Finding(f"pod {one.pod}", bad, f"{one.reason}: {one.detail}", one.advice or "see it")
    if not ready:
        return
    try:
        reach.check(service)
        asyncio.run(_call(reach, service))
    except TuneproofError as error:
        advice = "see its log"
        if isinstance(error, Unauthenticated | Forbidden):
            advice = "TUNEPROOF_TOKEN, or the Secret tuneproof-client"
        elif isinstance(error, WrongState):
            advice = "bring both to one version"
        yield Finding(f"calls to {service.name}", "missing", error.message, advice)
    else:
        yield Finding(f"calls to {service.name}", "ok", "it is not older than this client")


async def _call(reach: Reach, service: Service) -> None:
    (kind,) = (one for one in _ASK if one.service == service.role)
    targets = {service.role: service.pool} if service.role == "generator" else {}
    endpoints = await asyncio.to_thread(reach.endpoints, targets, [service.role])
    async with kind.of(endpoints) as client:
        await _ASK[kind](client)


def _pods_refused(cluster: Cluster) -> Iterator[Finding]:
    """Why a workload makes no pods: quota, Pod Security, a missing account."""
    from tuneproof.cluster.troubles import latest  # noqa: PLC0415 - an extra

    for kind, name, message in latest(cluster, "FailedCreate"):
        yield Finding(
            f"{kind} {name}", "warning", f"makes no pod: {message}", "correct the overlay"
        )


def _gpus(cluster: Cluster) -> Iterator[Finding]:
    try:
        nodes = cluster.list("nodes", everywhere=True)
        slices = cluster.list("resourceslices", everywhere=True)
    except InvalidInput:
        yield Finding("GPUs", "note", "nodes are not for this user to see")
        return
    gpus = sum(int(node["status"].get("allocatable", {}).get(_GPU, 0)) for node in nodes)
    devices = sum(len(each["spec"].get("devices") or ()) for each in slices)
    asked = sum(_asked(pod) for pod in cluster.list("pods"))
    detail = f"{gpus} on {len(nodes)} nodes, {devices} devices by DRA; pods here ask for {asked}"
    yield checked("GPUs", asked <= gpus, detail, "add nodes, or lower replicas")


def _asked(pod: dict[str, Any]) -> int:
    containers = pod["spec"]["containers"]
    return sum(int(one.get("resources", {}).get("limits", {}).get(_GPU, 0)) for one in containers)


def _policies(cluster: Cluster) -> Iterator[Finding]:
    try:
        space = cluster.ask("GET", f"/api/v1/namespaces/{cluster.namespace}", fine=(404,)) or {}
        policies = cluster.list("networkpolicies")
    except InvalidInput:
        yield Finding("policies", "note", "not for this user to see")
        return
    level = space.get("metadata", {}).get("labels", {}).get(_RESTRICTED, "")
    advice = "use deploy/k8s/base/namespace.yaml"
    detail = f"enforced: {level}" if level else "none enforced"
    yield checked("Pod Security", level == "restricted", detail, advice, otherwise="note")
    yield checked(
        "network policies",
        bool(policies),
        f"{len(policies)}" if policies else "none: every pod of the cluster may call these",
        "add the component network-policies",
        otherwise="note",
    )


def _artifacts(reach: Reach) -> Finding:
    try:
        store = reach.artifacts()
    except TuneproofError as error:
        return Finding("artifacts", "note", error.message)
    outside = "://" in store
    detail = (
        store if outside else f"{store or 'not named'}, a volume: studies run by `study submit`"
    )
    return Finding("artifacts", "ok" if outside else "note", detail, "component s3")
