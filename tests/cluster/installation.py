"""Overlay `cpu` on a cluster, from images of the Dockerfile, for the demo's model and study."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from ..programs import unpack
from ..rendering import K8S, ROOT, Manifest, build, write
from .cluster import LENT, SIZE, Cluster, local_volume

NAMESPACE = "tuneproof-demo"
MANAGE, USE = "manage-token-of-the-demo", "use-token-of-the-demo"
WORKLOADS = {
    "weaviate": "statefulset",
    "retriever": "statefulset",
    "generator": "statefulset",
    "trainer": "statefulset",
    "judge": "deployment",
    "adapter-operator": "deployment",
}
COMPONENTS = ("weaviate", "training-jobs", "s3", "adapters-crd")
ARTIFACTS = "s3://artifacts/demo"
WEAVIATE = "cr.weaviate.io/semitechnologies/weaviate:1.39.0"
SERVICES = ("retriever", "generator", "trainer", "judge")
CPU = {"weaviate": 100, "generator": 500, "trainer": 100, "judge": 100}
"""Thousandths of a core that a pod asks for, the others less: two must do for all, for two
trainings and a submitted study."""
FOLDERS = ("models", "data")
"""Volumes, by the names of their claims."""


@dataclass(frozen=True)
class Installation:
    """What runs."""

    cluster: Cluster
    environment: Mapping[str, str]
    """Variables with which a client of this machine reaches the services and the artifacts."""

    def address(self, service: str) -> str:
        """One of its pods, which this machine reaches directly."""
        chosen = ("--namespace", NAMESPACE, "--selector", f"app.kubernetes.io/name={service}")
        pod, *_ = self.cluster.get("pods", *chosen)
        return f"{pod['status']['podIP']}:50051"

    def context(self) -> list[str]:
        """Flags with which `tuneproof` goes through the cluster's API."""
        return ["--context", "c", "--namespace", NAMESPACE]

    def flags(self) -> list[str]:
        """With which `tuneproof` finds the services and the artifacts."""
        flags = [part for name in SERVICES for part in (f"--{name}", self.address(name))]
        return [*flags, "--artifacts", ARTIFACTS]


@contextmanager
def installation(
    cluster: Cluster, s3: Mapping[str, str], embedder: str, folder: Path
) -> Iterator[Installation]:
    """Applies the overlay and waits until everything is ready; deletes it at the end.

    Args:
        embedder: the URL of Text Embeddings Inference.
        folder: for files.
    """
    kubectl, here = cluster.kubectl, ("--namespace", NAMESPACE)
    manifests = overlay(cluster, embedder, folder)
    (space,) = [each for each in manifests if each["kind"] == "Namespace"]
    clear(cluster)
    kubectl.apply(space)
    try:
        kubectl.apply(*secrets(s3), *volumes(folder))
        rubrics = f"--from-file={ROOT / 'demo/rubrics'}"
        kubectl("create", "configmap", "rubrics", rubrics, *here)
        said = kubectl.apply(*(each for each in manifests if each is not space))
        assert "Warning" not in said
        for name, kind in WORKLOADS.items():
            kubectl("rollout", "status", f"{kind}/{name}", "--timeout=110s", *here)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBECONFIG", str(cluster.kubeconfig))
            yield Installation(cluster, {**s3, "TUNEPROOF_TOKEN": MANAGE})
    finally:
        clear(cluster, "--wait=false")


def clear(cluster: Cluster, *options: str) -> None:
    """Deletes it."""
    volumes = [f"{NAMESPACE}-{name}" for name in FOLDERS]
    for what in (("namespace", NAMESPACE), ("persistentvolume", *volumes)):
        cluster.kubectl("delete", *what, "--ignore-not-found", *options)


def overlay(cluster: Cluster, embedder: str, folder: Path) -> list[Manifest]:
    """Overlay `cpu` with corpora on Weaviate, artifacts in S3, trainings as Jobs, and adapters by
    kubectl."""
    write(
        folder / "all",
        resources=[K8S / "overlays/cpu"],
        components=[K8S / "components" / name for name in COMPONENTS],
    )
    merged = {"namespace": "tuneproof", "behavior": "merge"}
    embedding = {"EMBEDDER": "tei", "EMBEDDER_URL": embedder}
    literals = [f"TUNEPROOF_RETRIEVER_{name}={value}" for name, value in embedding.items()]
    write(
        folder / "overlay",
        resources=[folder / "all"],
        namespace=NAMESPACE,
        images=[{"name": "tuneproof/retriever", "newTag": "0.1.0-slim"}],
        configMapGenerator=[
            {"name": "store", **merged, "literals": [f"url={ARTIFACTS}"]},
            {"name": "retriever", **merged, "literals": literals},
            # As `tuneproof up` has it on two cores.
            {"name": "generator", **merged, "literals": ["TUNEPROOF_GENERATOR_THREADS=1"]},
        ],
    )
    manifests = build(cluster.program, folder / "overlay")
    for each in manifests:
        name = each["metadata"]["name"]
        if each["kind"] in ("StatefulSet", "Deployment"):
            (container,) = each["spec"]["template"]["spec"]["containers"]
            container["resources"]["requests"] = {"cpu": f"{CPU.get(name, 50)}m", "memory": "256Mi"}
        for claim in _claims(each):
            claim["spec"] |= {"storageClassName": LENT, "resources": {"requests": SIZE}}
            claim["spec"]["volumeName"] = f"{NAMESPACE}-{claim['metadata']['name']}"
        if name.startswith("trainer-jobs-"):
            profiles = yaml.safe_load(each["data"]["profiles.yaml"])
            small = {"cpu": "100m", "memory": "512Mi"}
            profiles["profiles"] = {"cpu": {"device": "cpu", "requests": small}}
            each["data"]["profiles.yaml"] = yaml.safe_dump(profiles)
    return manifests


def _claims(manifest: Manifest) -> list[Manifest]:
    own = [manifest] if manifest["kind"] == "PersistentVolumeClaim" else []
    return own + manifest["spec"].get("volumeClaimTemplates", []) if "spec" in manifest else own


def volumes(folder: Path) -> list[Manifest]:
    """Folders of this machine: the demo's model, and an empty one for Weaviate."""
    shutil.copytree(ROOT / "demo/telecom-reader", folder / "models/base")
    (folder / "data").mkdir()
    return [
        local_volume(f"{NAMESPACE}-{name}", folder / name, storage_class=LENT, mode="ReadWriteOnce")
        for name in FOLDERS
    ]


def secrets(s3: Mapping[str, str]) -> list[Manifest]:
    contents = {
        "tuneproof-tokens": {"tokens": f"use {USE}\nmanage {MANAGE}\n", "judge-api-key": USE},
        "tuneproof-weaviate": {"api-key": "of-the-demo", "cluster-password": "of-the-demo"},
        "tuneproof-s3": dict(s3),
        "tuneproof-client": {"token": MANAGE},
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "stringData": content,
        }
        for name, content in contents.items()
    ]


def make_weaviate(cluster: Cluster, folder: Path) -> None:
    """Gives the node an image of the real server, under the name that the component asks for."""
    program = folder / "root/bin/weaviate"
    program.parent.mkdir(parents=True)
    unpack(Path(os.environ["TUNEPROOF_TOOLS"]) / "weaviate/weaviate-server.xz", program)
    cluster.make_image(WEAVIATE, folder / "root", entry="/bin/weaviate")
