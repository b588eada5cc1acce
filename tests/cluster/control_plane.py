"""Kubernetes' own API server, controllers and scheduler, without a node on which pods run.

Needs neither root nor a network: it takes manifests as a cluster does, and places pods on nodes
that are only described.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml

from ..rendering import Manifest
from .kubectl import Kubectl

_TOKEN = "of-an-administrator"
_UNUSED = ("node-ipam", "node-lifecycle", "node-route", "pod-garbage-collector")
"""Controllers that would take nodes without a kubelet for lost."""


class ControlPlane:
    """One that runs.

    Args:
        program: the one binary of Kubernetes, which is every program by the name it is called.
        folder: for its files.
    """

    def __init__(self, program: Path, folder: Path) -> None:
        self._program, self._folder = program, folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.kubeconfig = folder / "kubeconfig"
        self.kubectl = Kubectl(program, self.kubeconfig, seconds=60)

    def start(self) -> None:
        etcd, peer, port = _free_ports(3)
        key, tokens = self._folder / "sa.key", self._folder / "tokens.csv"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        tokens.write_text(f"{_TOKEN},admin,admin,system:masters\n")
        self.kubeconfig.write_text(yaml.safe_dump(_kubeconfig(port)))
        store = f"http://127.0.0.1:{etcd}"
        self._run(
            "etcd",
            f"--data-dir={self._folder / 'store'}",
            f"--listen-client-urls={store}",
            f"--advertise-client-urls={store}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
        )
        self._run(
            "kube-apiserver",
            f"--etcd-servers={store}",
            f"--secure-port={port}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={self._folder / 'certificates'}",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.99.0.0/24",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
        )
        self._until(lambda: self.kubectl("get", "--raw", "/readyz", fine=True) == "ok")
        self._run(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            f"--service-account-private-key-file={key}",
            "--controllers=*," + ",".join(f"-{name}-controller" for name in _UNUSED),
            "--leader-elect=false",
            "--secure-port=0",
        )
        self._run(
            "kube-scheduler",
            f"--kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            "--secure-port=0",
        )

    def stop(self) -> None:
        """Ends the programs, the store last."""
        for process in reversed(self._processes):
            process.terminate()
            process.wait(timeout=30)

    def node(self, name: str, product: str = "", gpus: int = 0) -> None:
        """Describes a node; one with GPUs is tainted."""
        labels = {"kubernetes.io/hostname": name, "nvidia.com/gpu.product": product}
        self.kubectl.apply(
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
        )
        has = {"cpu": "96", "memory": "2Ti", "pods": "110", "nvidia.com/gpu": str(gpus)}
        ready = [{"type": "Ready", "status": "True"}]
        self._patch(name, {"status": {"capacity": has, "allocatable": has, "conditions": ready}})
        # The server has tainted it as not ready.
        taint = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
        self._patch(name, {"spec": {"taints": [taint] if product else []}})

    def until_defined(self) -> None:
        """Waits until every custom resource is served. `kubectl wait` stumbles over new ones."""
        every = ("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        self._until(lambda: "error" not in self.kubectl(*every, fine=True))

    def pods(self, namespace: str) -> list[Manifest]:
        found = json.loads(self.kubectl("get", "pods", "-n", namespace, "-o", "json"))
        return list(found["items"])

    def _patch(self, node: str, change: Manifest) -> None:
        part = ["--subresource=status"] if "status" in change else []
        self.kubectl("patch", "node", node, "--type=merge", *part, "-p", json.dumps(change))

    def _run(self, name: str, *arguments: str) -> None:
        program = self._folder / name
        program.symlink_to(self._program)
        with (self._folder / f"{name}.log").open("wb") as log:
            self._processes.append(subprocess.Popen([program, *arguments], stdout=log, stderr=log))

    def _until(self, done: Any, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end
            assert all(process.poll() is None for process in self._processes)
            time.sleep(0.3)


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _kubeconfig(port: int) -> Manifest:
    server = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": server}],
        "users": [{"name": "admin", "user": {"token": _TOKEN}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
        "current-context": "here",
    }
