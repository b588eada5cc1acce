"""A namespace's services as addresses that the clients of this machine call."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from tuneproof.cluster import gateway
from tuneproof.cluster.access import STORE_SECRET, secret, tls_in, token_in
from tuneproof.cluster.api import Cluster
from tuneproof.cluster.contracts import check_contract
from tuneproof.cluster.forwarding import Forwarder
from tuneproof.cluster.pods import container_of, variable_of
from tuneproof.cluster.services import GRPC, OPENAI, Service, generator_of, services_of
from tuneproof.cluster.troubles import why_not_ready
from tuneproof.sdk import (
    SERVICES,
    Endpoints,
    GeneratorClient,
    JudgeClient,
    RetrieverClient,
    TrainerClient,
)
from tuneproof.sdk.endpoints import TLS_DIR, TLS_SERVER_NAME
from tuneproof.servicekit.client import Token
from tuneproof.servicekit.errors import InvalidInput, Unavailable
from tuneproof.servicekit.tls import ClientTls

Via = Literal["forward", "direct", "gateway"]

_CONTRACTS = {
    one.service: one.contract
    for one in (RetrieverClient, GeneratorClient, TrainerClient, JudgeClient)
}
_MOST_PORTS = 16


class Reach:
    """The services of one namespace.

    Args:
        via: `forward`: ports that this process forwards; `direct`: the pods' addresses, where this
            machine is in their network; `gateway`: the host names of a Gateway's routes.
    """

    def __init__(self, cluster: Cluster, via: Via = "forward") -> None:
        self.cluster, self._via = cluster, via
        self._addresses: dict[tuple[str, str], str] = {}
        self._checked: set[str] = set()

    @cached_property
    def services(self) -> list[Service]:
        """Those that are there now."""
        return services_of(self.cluster)

    def endpoints(
        self,
        targets: Mapping[str, str | None],
        needs: Sequence[str],
    ) -> Endpoints:
        """The addresses of the services that a command needs.

        Args:
            targets: what flags say: an address `host:port`, which is left as it is, or the name of
                a pool for `generator`; and `token`.
            needs: roles; each must have a Ready pod, and know this client's calls.

        Raises:
            NotFound, InvalidInput, Unavailable: one is not there, as `service` says.
            Unavailable: one has no Ready pod, with the reason.
            WrongState: one is older than this client.
        """
        given = {role: targets.get(role) or "" for role in SERVICES}
        chosen = {role: self.service(role, given[role]) for role in needs if ":" not in given[role]}
        for service in chosen.values():
            self.check(service)
        openai = ""
        if self._via != "gateway" and (generator := chosen.get("generator")):
            scheme = "https" if generator.encrypted else "http"
            openai = f"{scheme}://{self._forwarded(generator, OPENAI, 1)}/v1"
        addresses = {role: self.address(service) for role, service in chosen.items()}
        return Endpoints(
            **(given | addresses),
            token=self.token(targets.get("token")),
            tls=self._tls,
            health={},
            openai=openai,
            names=self.names,
        )

    @property
    def names(self) -> dict[str, str]:
        """The services behind forwarded addresses."""
        found = self._addresses.items()
        return {address: name for (name, port), address in found if port == GRPC}

    def named(self, address: str) -> Service | None:
        """The service that an address in the cluster names, as `generator-mistral-7b:50051`; None
        for any other address."""
        host = address.removeprefix("dns:///").rpartition(":")[0] or address
        name, _, domain = host.partition(".")
        mine = domain in ("", f"{self.cluster.namespace}.svc.cluster.local"[: len(domain)])
        return next((one for one in self.services if mine and one.name == name), None)

    def pool_of(self, base: str, address: str) -> Service | None:
        """The generators of a base of a study file.

        Args:
            base: what the study calls it: the name of a pool, where there is no address.
            address: in the file; None is given for one that is not of the cluster.
        """
        return self.named(address) if address else generator_of(self.services, base)

    def artifacts(self) -> str:
        """The artifact store of the trainer."""
        return self._variable("trainer", "TUNEPROOF_TRAINER_ARTIFACTS")

    def claim_of(self, path: str) -> tuple[str, str]:
        """The claim of the volume that the trainer has at a path, and where it is mounted.

        Raises:
            InvalidInput: it has none there, so that no other pod reads what it writes.
        """
        for pod in self.service("trainer").pods[:1]:
            claims = {
                volume["name"]: volume["persistentVolumeClaim"]["claimName"]
                for volume in pod["spec"]["volumes"]
                if "persistentVolumeClaim" in volume
            }
            for mount in container_of(pod, "trainer").get("volumeMounts", ()):
                at = mount["mountPath"]
                if mount["name"] in claims and Path(path).is_relative_to(at):
                    return claims[mount["name"]], at
        raise InvalidInput(
            f"the trainer of {self.cluster.place} keeps its artifacts in {path or 'no place'},"
            " which is no volume that a Job can mount: add the component s3, or name a store with"
            " --artifacts"
        )

    def store_keys(self) -> dict[str, str]:
        """The variables with which the store is opened, where this user may read them."""
        found = secret(self.cluster, STORE_SECRET)
        return {name: value.decode() for name, value in found.items()}

    def address(self, service: Service) -> str:
        """Where gRPC calls to a service go, in gRPC's syntax.

        Raises:
            InvalidInput: by the gateway: no route leads to it.
        """
        if self._via == "gateway":
            if service.name not in self._routes:
                raise InvalidInput(f"no route of a Gateway leads to {service.name}")
            return self._routes[service.name][0]
        return self._forwarded(service, GRPC, min(len(service.pods), _MOST_PORTS))

    def check(self, service: Service) -> None:
        """Makes sure that a service is there, and is not older than this client."""
        if service.name in self._checked:
            return
        images = ", ".join(service.images)
        if not service.ready and self._via != "gateway":
            why = why_not_ready(self.cluster, service.pods)
            raise Unavailable(
                f"{service.name} in {self.cluster.place} is not ready:"
                f" {why or 'it has no pod'}; `tuneproof doctor --context {self.cluster.context}`"
                " tells more"
            )
        tls = self._tls if service.encrypted or self._via == "gateway" else None
        if tls is not None and not tls.server_name and self._via != "gateway":
            tls = tls.named(service.name)
        try:
            check_contract(
                *(_CONTRACTS[service.role], self.address(service), tls),
                f"{service.name} in {self.cluster.place} ({images})",
                own_version(),
            )
        except Unavailable as error:
            refusals = {} if self._via == "gateway" else self._forwarder.refusals
            if refusal := refusals.get(service.selector):
                raise Unavailable(f"{error.message} ({refusal})") from None
            raise
        self._checked.add(service.name)

    def token(self, given: str | None) -> Token | None:
        """A flag's or the environment's token, or one of the cluster's Secrets."""
        if token := given or os.environ.get("TUNEPROOF_TOKEN"):
            return token
        if file := os.environ.get("TUNEPROOF_TOKEN_FILE"):
            return Path(file)
        return token_in(self.cluster) or None

    def service(self, role: str, name: str = "") -> Service:
        """The service of a role.

        Args:
            name: of a generator's pool, where there are several.

        Raises:
            Unavailable: there is none.
            NotFound: there is no generator.
            InvalidInput: there is no such pool, or several, and none is named.
        """
        if role == "generator":
            return generator_of(self.services, name)
        found = next((one for one in self.services if one.role == role), None)
        if found is None:
            raise Unavailable(f"{self.cluster.place} has no {role}")
        return found

    @cached_property
    def _tls(self) -> ClientTls | None:
        if folder := os.environ.get(TLS_DIR):
            return ClientTls(Path(folder), server_name=os.environ.get(TLS_SERVER_NAME, ""))
        if self._via == "gateway":
            if any(encrypted for _, encrypted in self._routes.values()):
                raise InvalidInput(
                    "the gateway wants TLS: put the certificate of its authority as ca.crt into a"
                    f" folder, and name it in {TLS_DIR}"
                )
            return None
        return tls_in(self.cluster) if any(one.encrypted for one in self.services) else None

    def _variable(self, role: str, name: str) -> str:
        service = self.service(role)
        containers = [container_of(pod, role) for pod in service.pods[:1]]
        return next((variable_of(self.cluster, one, name) for one in containers), "")

    def _forwarded(self, service: Service, port: str, count: int) -> str:
        key = (service.name, port)
        if key not in self._addresses:
            ports = self._forwarder.open(service.selector, port, count)
            several = len(ports) > 1
            self._addresses[key] = f"ipv4:{','.join(ports)}" if several else ports[0]
        return self._addresses[key]

    @cached_property
    def _routes(self) -> dict[str, tuple[str, bool]]:
        return gateway.addresses_of(self.cluster, self.services)

    @cached_property
    def _forwarder(self) -> Forwarder:
        if self._via == "forward":
            # The second is what newer clusters ask of a websocket.
            for verb in ("get", "create"):
                if not self.cluster.may(verb, "pods", "portforward"):
                    raise InvalidInput(
                        f"this user may not forward ports in {self.cluster.place}: ask for the"
                        f" right to {verb} pods/portforward, or name addresses by --via gateway"
                    )
        return Forwarder(self.cluster, "direct" if self._via == "direct" else "forward")


def own_version() -> str:
    """Of this client."""
    try:
        return version("tuneproof")
    except PackageNotFoundError:
        return "of a source tree"
