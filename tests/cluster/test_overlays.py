"""Overlays and components: Kubernetes' server takes them, its scheduler places their pods."""

from __future__ import annotations

import copy
import shutil
import time
from pathlib import Path

import pytest

from ..rendering import K8S, PODS, ROOT, Manifest, all_manifests, build
from .control_plane import ControlPlane

PRODUCTS = {"h100": "NVIDIA-H100-80GB-HBM3", "a100": "NVIDIA-A100-SXM4-80GB"}
GPUS = {"h100": 4, "a100": 2}
ANY_VOLUME = "any-volume"

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


def test_the_server_takes_everything_to_the_letter_and_warns_of_nothing(
    control_plane: ControlPlane, kubectl: Path, tmp_path: Path
) -> None:
    manifests = all_manifests(kubectl, tmp_path)
    (namespace,) = [each for each in manifests if each["kind"] == "Namespace"]
    labels = namespace["metadata"]["labels"]
    modes = {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "warn")}
    assert modes == {"restricted"}
    control_plane.kubectl.apply(namespace)
    # The definitions of cert-manager are not at hand.
    taken = [each for each in manifests if not each["apiVersion"].startswith("cert-manager.io/")]
    assert "Warning" not in control_plane.kubectl.apply(*taken, dry_run=True)
    # A workload that is not restricted is warned of; the pods that it makes would be refused.
    wrong = copy.deepcopy(next(each for each in manifests if each["kind"] == "Deployment"))
    del wrong["spec"]["template"]["spec"]["securityContext"]
    assert "Warning" in control_plane.kubectl.apply(wrong, dry_run=True)


def test_the_scheduler_finds_a_node_for_every_pod_by_resource_and_by_claim(
    control_plane: ControlPlane, kubectl: Path, tmp_path: Path
) -> None:
    control_plane.node("plain")
    for name, product in PRODUCTS.items():
        control_plane.node(name, product, GPUS[name])
    control_plane.node("claimed", "claimed")
    control_plane.kubectl.apply(device_class(), devices("claimed", 4))
    scenes = {name: build(kubectl, K8S / "overlays" / name) for name in PRODUCTS}
    scenes["claimed"] = build(kubectl, with_claims(tmp_path) / "overlays/h100")
    for name, manifests in scenes.items():
        moved = [placed(each, name) for each in manifests]
        volumes = [volume(f"{name}-{number}") for number in range(3)]
        spaces = [each for each in moved if each["kind"] == "Namespace"]
        control_plane.kubectl.apply(*spaces)
        control_plane.kubectl.apply(*volumes, *(each for each in moved if each not in spaces))
    for name, manifests in scenes.items():
        wanted = sum(each["spec"].get("replicas", 1) for each in manifests if each["kind"] in PODS)
        where = until_placed(control_plane, name, wanted)
        on_gpus = {pod for pod, node in where.items() if node == name}
        assert set(where.values()) == {name, "plain"}
        assert on_gpus == {pod for pod in where if pod.startswith("generator-")}


def until_placed(control_plane: ControlPlane, namespace: str, wanted: int) -> dict[str, str]:
    """The nodes of a namespace's pods, when all have one."""
    end = time.monotonic() + 60
    while True:
        pods = control_plane.pods(namespace)
        where = {each["metadata"]["name"]: each["spec"].get("nodeName", "") for each in pods}
        if len(where) == wanted and all(where.values()):
            return where
        assert time.monotonic() < end, [each["status"] for each in pods]
        time.sleep(0.5)


def with_claims(folder: Path) -> Path:
    """The manifests with pools that claim their GPUs."""
    shutil.copytree(K8S, folder / "k8s")
    shutil.copytree(ROOT / "deploy/observability", folder / "observability")
    for path in folder.glob("k8s/pools/*/kustomization.yaml"):
        path.write_text(path.read_text().replace("components/gpu]", "components/gpu-dra]"))
    return folder / "k8s"


def placed(manifest: Manifest, name: str) -> Manifest:
    """The same in a namespace of its own, with volumes that are there, on nodes of that name."""
    moved = copy.deepcopy(manifest)
    if moved["kind"] == "Namespace":
        moved["metadata"]["name"] = name
    else:
        moved["metadata"]["namespace"] = name
    claims = [moved] if moved["kind"] == "PersistentVolumeClaim" else []
    claims += moved.get("spec", {}).get("volumeClaimTemplates", [])
    for claim in claims:
        claim["spec"]["storageClassName"] = ANY_VOLUME
    if name == "claimed" and moved["kind"] == "StatefulSet":
        selector = moved["spec"]["template"]["spec"].get("nodeSelector", {})
        selector.update(dict.fromkeys(selector, "claimed"))
    return moved


def volume(name: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Ti"},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "storageClassName": ANY_VOLUME,
            "hostPath": {"path": "/nowhere"},
        },
    }


def device_class() -> Manifest:
    """As NVIDIA's driver makes it."""
    rule = "device.driver == 'gpu.nvidia.com'"
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": "gpu.nvidia.com"},
        "spec": {"selectors": [{"cel": {"expression": rule}}]},
    }


def devices(node: str, count: int) -> Manifest:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": node},
        "spec": {
            "nodeName": node,
            "driver": "gpu.nvidia.com",
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": f"gpu-{number}"} for number in range(count)],
        },
    }
