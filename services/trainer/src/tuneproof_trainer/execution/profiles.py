"""What a worker's pod asks of its node, by profile: h100, a100 and cpu, or others of a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tuneproof.servicekit.errors import InvalidInput


class Profile(BaseModel, frozen=True, extra="forbid"):
    """One kind of node."""

    device: str
    """The worker's --device: cpu or cuda."""
    device_resource: str = ""
    """The extended resource of one device, as nvidia.com/gpu; empty: none."""
    requests: dict[str, str] = {}
    """Of each pod, besides the devices."""
    limits: dict[str, str] = {}
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()
    shared_memory: str = "1Gi"
    """Size limit of /dev/shm, which processes of several devices speak through."""


_GPU = {
    "device": "cuda",
    "device_resource": "nvidia.com/gpu",
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "shared_memory": "16Gi",
}
DEFAULTS: Mapping[str, Profile] = {
    "h100": Profile.model_validate(
        _GPU
        | {
            "requests": {"cpu": "8", "memory": "64Gi"},
            "limits": {"memory": "192Gi"},
            "node_selector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
        }
    ),
    "a100": Profile.model_validate(
        _GPU
        | {
            "requests": {"cpu": "8", "memory": "64Gi"},
            "limits": {"memory": "192Gi"},
            "node_selector": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"},
        }
    ),
    "cpu": Profile(
        device="cpu",
        requests={"cpu": "1", "memory": "2Gi"},
        limits={"memory": "8Gi"},
    ),
}


def load_profiles(path: Path | None) -> dict[str, Profile]:
    """The profiles by name: those of a YAML file replace the defaults of the same names.

    Raises:
        InvalidInput: when the file cannot be read; the message names the field.
    """
    found = dict(DEFAULTS)
    if path is None:
        return found
    try:
        given = yaml.safe_load(path.read_text())
        for name, values in given["profiles"].items():
            found[name] = Profile.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (name, *first["loc"])))
        raise InvalidInput(f"{path}: {place}: {first['msg']}", field="profiles") from None
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"{path} cannot be read as profiles ({error}); it needs a map `profiles` of names",
            field="profiles",
        ) from None
    return found
