"""A real Kubernetes cluster on this machine, from the folder that TUNEPROOF_TOOLS names.

One node that runs pods and simulated ones that do not; only root can start it. The machine is
10.90.0.1 for the pods, which reach nothing else outside.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from ..rendering import Manifest
from .kubectl import Kubectl

HOST = "10.90.0.1"
NODE = "node1"
NEEDS = {
    "runc": "runc",
    "nft": "nftables",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
"""What the node is made of, and the Debian package that has it."""

RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/warn": "restricted",
}
"""Labels of a namespace that lets only such pods in."""

LENT = "lent"
"""Storage class of folders of this machine that pods are lent."""
SIZE = {"storage": "1Gi"}
"""Of every local volume."""


class Cluster:
    """A cluster that runs.

    Args:
        folder: for its files; `purge` deletes it.
    """

    def __init__(self, folder: Path) -> None:
        self._script = _tool()
        self._folder = folder
        self.kubeconfig = folder / "conf" / "admin.kubeconfig"
        self.program = folder / "bin" / "kubectl"
        self.kubectl = Kubectl(self.program, self.kubeconfig, seconds=120)

    def up(self) -> None:
        """Starts the node, and the simulation of others."""
        self._run("up", "both")

    def purge(self) -> None:
        """Ends it and all its pods, and deletes its files."""
        self._run("purge")

    def load(self, archive: Path) -> None:
        """Gives the node an image, as `docker save` or `mkimage.sh` writes it."""
        self._run("load", str(archive))

    def make_image(self, name: str, root: Path, *, entry: str = "/bin/sh") -> None:
        """Makes an image of a folder with all its files, and gives it to the node.

        Args:
            entry: its entry point.
        """
        archive = self._folder / "image.tar"
        _run(self._script.with_name("mkimage.sh"), name, root, archive, f'["{entry}"]')
        self.load(archive)

    def get(self, *arguments: str) -> list[Manifest]:
        """The objects that `kubectl get` finds."""
        found = json.loads(self.kubectl("get", *arguments, "--output", "json"))
        return list(found.get("items", [found]))

    def define(self, group: str) -> None:
        """Adds the custom resources of a group, without their controllers."""
        paths = sorted(self._script.parent.glob(f"crds/{group}_*.yaml"))
        for path in paths:
            self.kubectl("apply", "--server-side", "--filename", path)
        end = time.monotonic() + 30
        served: list[str] = []
        while len(served) < len(paths):
            assert time.monotonic() < end, f"{group} is not served"
            served = self.kubectl("api-resources", "--api-group", group, "-o", "name").split()

    def may(self, account: str, asked: str, namespace: str, *, of: str = "tuneproof") -> bool:
        """Whether a service account may do something in a namespace, as `get pods/log`.

        Args:
            of: the account's own namespace.
        """
        what, _, part = asked.partition("/")
        said = self.kubectl(
            *("auth", "can-i", *what.split(), "--subresource", part, "--namespace", namespace),
            *("--as", f"system:serviceaccount:{of}:{account}"),
            fine=True,
        )
        return said.splitlines()[0] == "yes"

    def evict(self, pod: str, namespace: str, *, fine: bool = False) -> str:
        """As a drain of its node does; what the API server says.

        Args:
            fine: gives a refusal too.
        """
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
        }
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
        given = json.dumps(eviction)
        return self.kubectl("create", "--raw", path, "-f", "-", given=given, fine=fine)

    def simulate_node(self, name: str, labels: Mapping[str, str], gpus: int) -> None:
        """Adds a node that advertises GPUs and is tainted like a real one; nothing runs on it."""
        has = {"cpu": "64", "memory": "1Ti", "pods": "110", "nvidia.com/gpu": str(gpus)}
        self.kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": name,
                    "labels": {"kubernetes.io/hostname": name, **labels},
                    "annotations": {"kwok.x-k8s.io/node": "fake"},
                },
                "spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]},
                "status": {"allocatable": has, "capacity": has},
            }
        )

    def lend(self, namespace: str, folders: Mapping[str, Path]) -> list[Manifest]:
        """Lets pods of a namespace read folders of this machine, through local volumes: these are
        what a *restricted* namespace allows.

        Returns:
            the volumes of a pod that takes them, read-only.
        """
        for name, folder in folders.items():
            self.kubectl.apply(*_lent(name, folder, namespace))
        return [
            {"name": name, "persistentVolumeClaim": {"claimName": name, "readOnly": True}}
            for name in folders
        ]

    def _run(self, command: str, *arguments: str) -> None:
        _run(self._script, command, self._folder, *arguments)


def local_volume(name: str, folder: Path, *, storage_class: str, mode: str) -> Manifest:
    """A volume of the cluster that is a folder of this machine.

    Args:
        mode: of access, as `ReadOnlyMany`.
    """
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": SIZE,
            "accessModes": [mode],
            "storageClassName": storage_class,
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


def _lent(name: str, folder: Path, namespace: str) -> list[Manifest]:
    volume, mode = f"{namespace}-{name}", "ReadOnlyMany"
    return [
        local_volume(volume, folder, storage_class=LENT, mode=mode),
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "accessModes": [mode],
                "storageClassName": LENT,
                "volumeName": volume,
                "resources": {"requests": SIZE},
            },
        },
    ]


def _tool() -> Path:
    """The script that starts a cluster; skips the test where something is missing."""
    script = Path(os.environ.get("TUNEPROOF_TOOLS", "")) / "kubernetes" / "cluster.sh"
    missing = [package for program, package in NEEDS.items() if shutil.which(program) is None]
    if not os.environ.get("TUNEPROOF_TOOLS") or not script.is_file():
        pytest.skip(
            "needs a cluster: set TUNEPROOF_TOOLS to a folder with kubernetes/cluster.sh, whose"
            " `up DIR both` starts Kubernetes on this machine (.ci/run sets it)"
        )
    if os.geteuid() or missing:
        pytest.skip(
            "needs a cluster: run as root, with the Debian packages"
            f" {', '.join(missing or NEEDS.values())}"
        )
    return script


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{command}: {done.stderr}"
