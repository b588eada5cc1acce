"""Manifests as kubectl builds them: overlays, and components on top of the base."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
K8S = ROOT / "deploy/k8s"
OVERLAYS = sorted(path.parent for path in K8S.glob("overlays/*/kustomization.yaml"))
JOBS = sorted(path.parent for path in K8S.glob("jobs/*/kustomization.yaml"))
COMPONENTS = sorted(path.parent.name for path in K8S.glob("components/*/kustomization.yaml"))
OF_POOLS = ("gpu", "gpu-dra", "gateway-pool", "keda", "inference-pool", "mtls-pool")
"""Components for a pool's folder; the others are for an overlay."""
EVERYTHING = (
    *("training-jobs", "kueue", "s3", "tei-gpu", "weaviate"),
    *("gateway", "network-policies", "observability", "adapters-crd"),
    *("gpu-dra", "inference-pool", "keda"),
)
"""Components that go together."""
WORKLOADS = ("Deployment", "StatefulSet")
PODS = (*WORKLOADS, "Job")

Manifest = dict[str, Any]
Built = dict[str, list[Manifest]]


def build(kubectl: Path, folder: Path) -> list[Manifest]:
    """What `kubectl kustomize` makes of a folder."""
    done = subprocess.run(
        [kubectl, "kustomize", folder], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return list(yaml.safe_load_all(done.stdout))


def together(kubectl: Path, folder: Path, components: Iterable[str]) -> list[Manifest]:
    """The base and a pool with components, by an overlay that is written into an empty folder.

    The pool has a name of its own, `two-gpus`, where one of the components is for pools.
    """
    of_pool = [name for name in components if name in OF_POOLS]
    pool = K8S / "pool"
    if of_pool:
        pool = folder / "two-gpus"
        settings = {"MODEL": "some/model", "REVISION": "0" * 40, "MODEL_NAME": "two"}
        settings["TENSOR_PARALLEL"] = "2"
        literals = [f"TUNEPROOF_GENERATOR_{name}={value}" for name, value in settings.items()]
        write(
            pool,
            resources=[K8S / "pool"],
            components=[K8S / "components" / name for name in of_pool],
            nameSuffix="-two-gpus",
            labels=[{"pairs": {"app.kubernetes.io/instance": "two"}, "includeSelectors": True}],
            configMapGenerator=[
                {
                    "name": "generator",
                    "namespace": "tuneproof",
                    "behavior": "merge",
                    "literals": literals,
                }
            ],
        )
    of_overlay = [K8S / "components" / name for name in components if name not in OF_POOLS]
    write(folder, resources=[K8S / "base", pool], components=of_overlay)
    return build(kubectl, folder)


def all_manifests(kubectl: Path, folder: Path) -> list[Manifest]:
    """What every overlay and Job, every component alone, and the components together make; the
    same manifest once."""
    sets = [*((name,) for name in COMPONENTS), EVERYTHING]
    found = [build(kubectl, overlay) for overlay in (*OVERLAYS, *JOBS)]
    found += [together(kubectl, folder / "+".join(names), names) for names in sets]
    texts = dict.fromkeys(yaml.safe_dump(each) for built in found for each in built)
    return [yaml.safe_load(text) for text in texts]


def write(folder: Path, **content: Any) -> None:
    """A folder's kustomization; the paths of resources and components are made relative to it."""
    folder.mkdir(parents=True, exist_ok=True)
    for key in ("resources", "components"):
        content[key] = [os.path.relpath(path, folder) for path in content.get(key, ())]
    content = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **content}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))


def of_kind(manifests: list[Manifest], *kinds: str) -> dict[str, Manifest]:
    """The manifests of some kinds by their names."""
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] in kinds}


def template(workload: Manifest) -> Manifest:
    return workload["spec"]["template"]


def role(workload: Manifest) -> str:
    """What its pods are: generator, judge, pull, …"""
    return template(workload)["metadata"]["labels"]["app.kubernetes.io/name"]


def container_of(workload: Manifest) -> Manifest:
    (container,) = template(workload)["spec"]["containers"]
    return container


def pods(manifests: list[Manifest], *kinds: str) -> Iterator[tuple[Manifest, Manifest, Manifest]]:
    """Each workload with its pod and its one container."""
    for workload in of_kind(manifests, *(kinds or PODS)).values():
        yield workload, template(workload)["spec"], container_of(workload)


def variables_of(manifests: list[Manifest], container: Manifest) -> dict[str, str]:
    """What a container's environment holds, without secrets."""
    maps = of_kind(manifests, "ConfigMap")
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            found |= maps[source["configMapRef"]["name"]]["data"]
    for each in container.get("env", []):
        key = each.get("valueFrom", {}).get("configMapKeyRef")
        if "value" in each or key:
            found[each["name"]] = each.get("value") or maps[key["name"]]["data"][key["key"]]
    return found


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a label selector selects something with these labels."""
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    expressions = selector.get("matchExpressions", [])
    wanted = {"In": True, "NotIn": False}
    return all(
        (labels.get(each["key"]) in each["values"]) == wanted[each["operator"]]
        for each in expressions
    )
