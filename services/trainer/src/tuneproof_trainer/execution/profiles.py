"""What the pods of workers ask of the cluster: a profile for each kind of node.

`h100`, `a100` and `cpu` are here; a file of YAML adds others, and what all pods get:

    pod:
      envFrom: [{secretRef: {name: s3}}]
      volumes: [{name: models, persistentVolumeClaim: {claimName: models, readOnly: true}}]
      volumeMounts: [{name: models, mountPath: /models, readOnly: true}]
    profiles:
      l40s: {device: cuda, resource: nvidia.com/gpu, deviceMemoryGib: 48}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.yamlfile import FileKind

_FILE = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Profile(BaseModel):
    """One kind of node. In a file the names are as Kubernetes writes them: `nodeSelector`."""

    model_config = _FILE

    device: Literal["cpu", "cuda"]
    """What workers train on."""
    device_memory_gib: float = 0.0
    """Of one GPU; the default micro-batch depends on it."""
    resource: str = ""
    """The extended resource of one device, as nvidia.com/gpu; empty: none."""
    requests: dict[str, str] = {}
    """Of each pod, besides the devices."""
    limits: dict[str, str] = {}
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()
    shared_memory: str = "1Gi"
    """Size of /dev/shm, which processes of several devices speak through."""


class PodParts(BaseModel):
    """What every worker's pod gets beside its profile, in Kubernetes' own terms."""

    model_config = _FILE

    labels: dict[str, str] = {}
    env: tuple[dict[str, Any], ...] = ()
    env_from: tuple[dict[str, Any], ...] = ()
    volumes: tuple[dict[str, Any], ...] = ()
    volume_mounts: tuple[dict[str, Any], ...] = ()


class _File(BaseModel):
    model_config = _FILE

    pod: PodParts = PodParts()
    profiles: dict[str, Profile] = {}


_KIND = FileKind(_File, "a file of profiles", "a map with `pod`, `profiles` or both")


@dataclass(frozen=True)
class Pods:
    """The chosen profile, and the rest of a worker's pod."""

    profile: Profile
    parts: PodParts


def _gpu(product: str) -> Profile:
    return Profile(
        device="cuda",
        device_memory_gib=80,
        resource="nvidia.com/gpu",
        requests={"cpu": "8", "memory": "64Gi"},
        limits={"memory": "192Gi"},
        node_selector={"nvidia.com/gpu.product": product},
        tolerations=({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
        shared_memory="16Gi",
    )


PROFILES: Mapping[str, Profile] = {
    "h100": _gpu("NVIDIA-H100-80GB-HBM3"),
    "a100": _gpu("NVIDIA-A100-SXM4-80GB"),
    "cpu": Profile(device="cpu", requests={"cpu": "1", "memory": "2Gi"}, limits={"memory": "8Gi"}),
}


def load_pods(name: str, path: Path | None = None) -> Pods:
    """A profile by its name. Those of the file replace the ones here.

    Raises:
        InvalidInput: when the file is wrong, or when there is no such profile.
    """
    found = _KIND.load(path) if path else _File()
    profiles = {**PROFILES, **found.profiles}
    if name not in profiles:
        raise InvalidInput(f"no profile {name!r}: there are {', '.join(sorted(profiles))}")
    return Pods(profiles[name], found.pod)
