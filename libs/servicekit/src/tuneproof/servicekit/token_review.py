"""Bearer tokens that Kubernetes knows: those of service accounts, OIDC, and others.

A TokenReview tells whose a token is, a SubjectAccessReview whether RBAC lets its holder `use` or
`manage` the service, as a resource of the group `tuneproof.dev` in the pod's namespace. The pod's
service account needs the ClusterRole `system:auth-delegator`.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from tuneproof.servicekit.auth import bearer_token
from tuneproof.servicekit.errors import (
    Forbidden,
    InvalidInput,
    TuneproofError,
    Unauthenticated,
    Unavailable,
)
from tuneproof.servicekit.reloading import Reloaded, read_secret
from tuneproof.servicekit.tls import ClientTls

GROUP = "tuneproof.dev"
_IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_SECONDS = 60.0
"""How long an answer holds: a token that is revoked is accepted for as long."""
_MOST = 1024
_TIMEOUT = 10.0
_CREATED = 201


@dataclass(frozen=True)
class Cluster:
    """The Kubernetes API as a pod reaches it."""

    host: str
    port: int
    folder: Path
    """Of the service account: `token`, `ca.crt` and `namespace`."""


class TokenReview:
    """An `Authenticator` by Kubernetes.

    Args:
        service: the resource, as `generator`.
        audience: that tokens must name.
        clock: seconds.

    Raises:
        InvalidInput: the service account's files cannot be read.
    """

    def __init__(
        self,
        service: str,
        audience: str,
        cluster: Cluster,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._audience = audience
        self._cluster = cluster
        self._clock = clock
        own = cluster.folder / "token"
        self._own = Reloaded([own], lambda: read_secret(own, "the service account's token"))
        self._trusting = ClientTls(cluster.folder).context()
        self._namespace = read_secret(cluster.folder / "namespace", "the pod's namespace")
        self._known: dict[tuple[bytes, str], tuple[float, str | TuneproofError]] = {}

    @classmethod
    def in_pod(cls, service: str, audience: str) -> TokenReview:
        """With the service account of this pod.

        Raises:
            InvalidInput: this is no pod, or it mounts no service account.
        """
        host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
        if not host or not _IN_POD.is_dir():
            raise InvalidInput(
                "token_review needs a pod that mounts its service account's token"
                f" at {_IN_POD}: set tokens_file elsewhere"
            )
        port = int(os.environ.get("KUBERNETES_SERVICE_PORT", "443"))
        return cls(service, audience, Cluster(host, port, _IN_POD))

    async def check(self, authorization: str, *, needs: str) -> str:
        """As an `Authenticator`."""
        token = bearer_token(authorization)
        key = sha256(token.encode()).digest(), needs
        until, found = self._known.get(key, (0.0, ""))
        if self._clock() >= until:
            try:
                found = await asyncio.to_thread(self._review, token, needs)
            except (Unauthenticated, Forbidden) as refusal:
                found = refusal
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[key] = self._clock() + _SECONDS, found
        if isinstance(found, TuneproofError):
            raise type(found)(found.message)
        return found

    def _review(self, token: str, needs: str) -> str:
        asked = {"token": token, "audiences": [self._audience]}
        status = self._create("authentication.k8s.io", "TokenReview", asked)
        if not status.get("authenticated") or self._audience not in status.get("audiences", []):
            raise Unauthenticated(
                f"Kubernetes does not know the bearer token for the audience {self._audience}"
            )
        user = status.get("user", {})
        name = str(user.get("username", ""))
        for verb in dict.fromkeys((needs, "manage")):
            resource = {
                "group": GROUP,
                "resource": self._service,
                "verb": verb,
                "namespace": self._namespace,
            }
            who: dict[str, Any] = {
                "user": name,
                "uid": user.get("uid", ""),
                "groups": user.get("groups", []),
                "extra": user.get("extra", {}),
                "resourceAttributes": resource,
            }
            if self._create("authorization.k8s.io", "SubjectAccessReview", who).get("allowed"):
                return name
        raise Forbidden(
            f"{name} may not {needs} {self._service}.{GROUP} in the namespace {self._namespace}:"
            " a Role and a RoleBinding allow it"
        )

    def _create(self, group: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
        cluster = self._cluster
        body = {"apiVersion": f"{group}/v1", "kind": kind, "spec": spec}
        headers = {
            "authorization": f"Bearer {self._own.now()}",
            "content-type": "application/json",
        }
        try:
            connection = http.client.HTTPSConnection(
                cluster.host, cluster.port, timeout=_TIMEOUT, context=self._trusting
            )
            try:
                path = f"/apis/{group}/v1/{kind.lower()}s"
                connection.request("POST", path, json.dumps(body), headers)
                reply = connection.getresponse()
                said = reply.read()
            finally:
                connection.close()
            if reply.status != _CREATED:
                raise Unavailable(
                    f"Kubernetes refused the {kind} with {reply.status}; does the service account"
                    " have the ClusterRole system:auth-delegator?"
                )
            status: dict[str, Any] = json.loads(said).get("status", {})
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Unavailable(f"Kubernetes does not answer the {kind}: {error}") from None
        return status
