"""A namespace of one test, whose pods borrow their programs from this machine.

What a Dockerfile makes is another test's subject. The namespace enforces *restricted*.
"""

from __future__ import annotations

import base64
import copy
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..rendering import Manifest
from .cluster import RESTRICTED, Cluster
from .training import IMAGE, borrowed

PYTHON = f"{Path(sys.prefix).resolve()}/bin/python"
DNS = "10.90.128.10:53"
"""The cluster's."""


class Scene:
    """A namespace and what its pods borrow; see `scene`."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.kubectl = cluster.kubectl
        self.namespace = namespace
        self.volumes = cluster.lend(namespace, borrowed())
        self.mounts = [
            {"name": name, "mountPath": str(folder), "readOnly": True}
            for name, folder in borrowed().items()
        ]
        variables = {"HOME": "/tmp", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        self.variables = [{"name": name, "value": value} for name, value in variables.items()]

    def pod(
        self, name: str, labels: Mapping[str, str], command: Sequence[str], **more: object
    ) -> Manifest:
        """A pod that runs a command, as *restricted* wants it.

        Args:
            more: of its container.
        """
        container = {
            "name": "one",
            "image": IMAGE,
            "command": list(command),
            "volumeMounts": self.mounts,
            "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": self.namespace, "labels": dict(labels)},
            "spec": {
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": 0,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 10001,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [container | more],
                "volumes": self.volumes,
            },
        }

    def borrowing(self, workload: Manifest, *command: str) -> Manifest:
        """A workload of the manifests in this namespace: its pods run a command on what they
        borrow, ask for little, and are soon looked at."""
        moved = copy.deepcopy(self.moved(workload))
        pod = moved["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        container |= {"image": IMAGE, "command": [PYTHON, *command]}
        container["resources"]["requests"] = {"cpu": "50m", "memory": "128Mi"}
        container["env"] = container.get("env", []) + self.variables
        container["volumeMounts"] += self.mounts
        pod["volumes"] += self.volumes
        for probe in (container["startupProbe"], container["readinessProbe"]):
            probe["failureThreshold"] = probe.get("failureThreshold", 3) * probe["periodSeconds"]
            probe["periodSeconds"] = 1
        return moved

    def secret(self, name: str, files: Mapping[str, bytes]) -> Manifest:
        data = {key: base64.b64encode(content).decode() for key, content in files.items()}
        return self.moved(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
        )

    def moved(self, manifest: Manifest) -> Manifest:
        """The same in this namespace."""
        return manifest | {"metadata": manifest["metadata"] | {"namespace": self.namespace}}

    def target(self, service: str, port: int) -> str:
        """The address of a service's pods in gRPC's syntax, looked up as pods do."""
        return f"dns://{DNS}/{service}.{self.namespace}.svc.cluster.local:{port}"

    def addresses(self) -> dict[str, str]:
        """Of its pods, by their names."""
        pods = self.cluster.get("pods", "--namespace", self.namespace)
        return {each["metadata"]["name"]: each["status"].get("podIP", "") for each in pods}


@contextmanager
def scene(
    cluster: Cluster, namespace: str, labels: Mapping[str, str] = {}, **lent: Path
) -> Iterator[Scene]:
    """Makes a namespace, anew where there is one, and deletes it with all that is in it.

    Args:
        labels: of the namespace.
        lent: more folders for its pods to read, by the names of their claims.
    """
    volumes = [f"{namespace}-{each}" for each in {**borrowed(), **lent}]

    def clear(*options: str) -> None:
        for what in (("namespace", namespace), ("persistentvolume", *volumes)):
            cluster.kubectl("delete", *what, "--ignore-not-found", *options)

    clear()
    made = {"name": namespace, "labels": RESTRICTED | dict(labels)}
    cluster.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": made})
    try:
        cluster.lend(namespace, lent)
        yield Scene(cluster, namespace)
    finally:
        clear("--wait=false")
