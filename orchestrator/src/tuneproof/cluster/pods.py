"""What a pod's object tells: whether it is Ready, its ports, and its settings."""

from __future__ import annotations

from typing import Any

from tuneproof.cluster.api import Cluster, Object, Refused
from tuneproof.servicekit.errors import InvalidInput


def is_ready(pod: Object) -> bool:
    """Whether its service may call it."""
    conditions = pod.get("status", {}).get("conditions", ())
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def port_of(pod: Object, port: str | int) -> int:
    """The number of a pod's port.

    Raises:
        InvalidInput: no container has a port of that name.
    """
    if isinstance(port, int):
        return port
    for container in pod["spec"]["containers"]:
        for each in container.get("ports", ()):
            if each.get("name") == port:
                return int(each["containerPort"])
    raise InvalidInput(f"the pod {pod['metadata']['name']} lacks a port named {port}")


def container_of(pod: Object, role: str) -> Object:
    """The container of a service; the first where none has its name."""
    containers: list[Object] = pod["spec"]["containers"]
    return next((one for one in containers if one["name"] == role), containers[0])


def variable_of(cluster: Cluster, container: Object, name: str) -> str:
    """A variable of a container, from the ConfigMaps that it names; empty where it is not set, or
    where this user must not read it."""
    for one in container.get("env", ()):
        if one["name"] == name:
            source = one.get("valueFrom", {}).get("configMapKeyRef")
            return (
                _content(cluster, source["name"]).get(source["key"], "")
                if source
                else str(one.get("value", ""))
            )
    for source in reversed(container.get("envFrom", ())):
        if reference := source.get("configMapRef"):
            content = _content(cluster, reference["name"])
            if name in content:
                return str(content[name])
    return ""


def _content(cluster: Cluster, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = (cluster.get("configmaps", name) or {}).get("data", {})
    except Refused:
        return {}
    return found
