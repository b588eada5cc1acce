"""The services of a namespace: the overlay's Services, their pods, and their pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuneproof.cluster.api import Cluster, Object
from tuneproof.cluster.pods import container_of, is_ready
from tuneproof.sdk import SERVICES
from tuneproof.servicekit.errors import InvalidInput, NotFound

NAME, INSTANCE = "app.kubernetes.io/name", "app.kubernetes.io/instance"
GRPC, OPENAI = "grpc", "openai"
"""Ports of a pod, by name."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the manifests, and its pods."""

    name: str
    """As in the cluster: `generator-mistral-7b`."""
    role: str
    """One of `SERVICES`."""
    pool: str
    """Of a generator: the name of its pool."""
    selector: str
    """Labels of its pods, as the API takes them."""
    port: int
    """Of gRPC."""
    pods: tuple[Object, ...]

    @property
    def ready(self) -> list[Object]:
        """The pods that it may call."""
        return [pod for pod in self.pods if is_ready(pod)]

    @property
    def inside(self) -> str:
        """Its address for pods of the namespace, in gRPC's syntax."""
        return f"dns:///{self.name}:{self.port}"

    @property
    def encrypted(self) -> bool:
        """Whether it listens with TLS: the component mtls mounts its certificate."""
        return any(
            volume["name"] == "tls" for pod in self.pods for volume in pod["spec"]["volumes"]
        )

    @property
    def images(self) -> list[str]:
        """Of its pods, each once."""
        return sorted({container_of(pod, self.role)["image"] for pod in self.pods})


def services_of(cluster: Cluster) -> list[Service]:
    """The services that are there; of generators each pool.

    Raises:
        NotFound: there is none.
    """
    listed = ",".join(SERVICES)
    pods = cluster.list("pods", f"{NAME} in ({listed})")
    found = [
        _service(each, pods)
        for each in cluster.list("services")
        if (each["spec"].get("selector") or {}).get(NAME) in SERVICES
        and any(port.get("name") == GRPC for port in each["spec"]["ports"])
    ]
    if not found:
        raise NotFound(
            f"{cluster.place} has no service of tuneproof: apply an overlay of deploy/k8s there, or"
            " name another one with --namespace"
        )
    return sorted(found, key=lambda one: (SERVICES.index(one.role), one.name))


def generator_of(services: Sequence[Service], pool: str) -> Service:
    """The generators of a pool; those of the only one for an empty name.

    Raises:
        InvalidInput: there is no such pool, or several, and none is named.
        NotFound: there is no generator at all.
    """
    generators = [one for one in services if one.role == "generator"]
    chosen = [one for one in generators if pool in ("", one.pool, one.name)]
    if len(chosen) == 1:
        return chosen[0]
    if not generators:
        raise NotFound("there is no generator: add a pool to the overlay")
    pools = ", ".join(one.pool for one in generators)
    wrong = f"there is no pool {pool!r}" if pool else "there are several pools"
    raise InvalidInput(f"{wrong}: name one with --generator; there are {pools}")


def _service(found: Object, pods: list[Object]) -> Service:
    selector: dict[str, str] = found["spec"]["selector"]
    name: str = found["metadata"]["name"]
    role = selector[NAME]
    port = next(port for port in found["spec"]["ports"] if port.get("name") == GRPC)
    mine = (pod for pod in pods if selector.items() <= pod["metadata"]["labels"].items())
    return Service(
        name,
        role,
        pool=selector.get(INSTANCE) or name.removeprefix(f"{role}-"),
        selector=",".join(f"{key}={value}" for key, value in selector.items()),
        port=int(port["port"]),
        pods=tuple(mine),
    )
