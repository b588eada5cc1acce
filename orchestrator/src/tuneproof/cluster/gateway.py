"""The addresses that a Gateway gives to services: the host names of its routes."""

from __future__ import annotations

from collections.abc import Sequence

from tuneproof.cluster.api import Cluster, Object
from tuneproof.cluster.services import Service
from tuneproof.servicekit.errors import NotFound

_HTTP_PORT, _HTTPS_PORT = 80, 443


def addresses_of(cluster: Cluster, services: Sequence[Service]) -> dict[str, tuple[str, bool]]:
    """`host:port` by service, and whether the gateway wants TLS there; those with a route only.

    Raises:
        NotFound: the namespace has no route to any of them.
    """
    routes, gateways = cluster.list("grpcroutes"), cluster.list("gateways")
    by_name = {gateway["metadata"]["name"]: gateway for gateway in gateways}
    found = {}
    for service in services:
        for route in routes:
            if service.name in _backends(route) and route["spec"].get("hostnames"):
                found[service.name] = _address(route, by_name)
    if not found:
        raise NotFound(
            f"{cluster.place} has no route of a Gateway to these services: add the component"
            " gateway, or leave out --via gateway"
        )
    return found


def _backends(route: Object) -> set[str]:
    return {
        backend["name"]
        for rule in route["spec"].get("rules", ())
        for backend in rule.get("backendRefs", ())
    }


def _address(route: Object, gateways: dict[str, Object]) -> tuple[str, bool]:
    host = route["spec"]["hostnames"][0]
    for parent in route["spec"].get("parentRefs", ()):
        for listener in gateways.get(parent["name"], {}).get("spec", {}).get("listeners", ()):
            if parent.get("sectionName") in (None, listener["name"]):
                encrypted = listener["protocol"] in ("HTTPS", "TLS")
                port = listener.get("port") or (_HTTPS_PORT if encrypted else _HTTP_PORT)
                return f"{host}:{port}", encrypted
    return f"{host}:{_HTTPS_PORT}", True
