"""The calls of Kubernetes' API, by kubeconfig: objects as JSON.

The official client reads the kubeconfig (certificates, tokens, login programs) and sends the
requests. Its own port-forwarding is left aside: it needs a thread for each connection and buffers
without bound, so `forwarding` speaks that protocol itself.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import quote

from tuneproof.servicekit.errors import InvalidInput, Unavailable

Object = dict[str, Any]
"""An object of the API as JSON."""

_SECONDS = 20.0
_GONE, _THERE = 404, 409
_PASSING = frozenset({0, 408, 429})
GROUPS = {
    "jobs": "apis/batch/v1",
    "networkpolicies": "apis/networking.k8s.io/v1",
    "resourceslices": "apis/resource.k8s.io/v1",
    "gateways": "apis/gateway.networking.k8s.io/v1",
    "grpcroutes": "apis/gateway.networking.k8s.io/v1",
}
"""Where kinds are that are not in the core group, by their plural."""


class Refused(InvalidInput):
    """The cluster's API refuses a call.

    Args:
        status: HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Library(NamedTuple):
    """What of Kubernetes' client is used."""

    client: Any
    config: Any
    HTTPError: type[Exception]


@cache
def _library() -> _Library:
    """Kubernetes' client, which is an extra and slow to load.

    Raises:
        InvalidInput: it is not installed.
    """
    try:
        from kubernetes import client, config  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415
    except ImportError:
        raise InvalidInput(
            "a cluster needs Kubernetes' client: install it with"
            " `pip install 'tuneproof[kubernetes]'`"
        ) from None
    return _Library(client, config, HTTPError)


class Cluster:
    """One namespace of a cluster. Its calls block.

    Args:
        context: of the kubeconfig.

    Raises:
        InvalidInput: the kubeconfig cannot be read, or lacks the context; or Kubernetes' client is
            not installed.
    """

    def __init__(self, context: str, namespace: str) -> None:
        client, config, _ = _library()
        self.context, self.namespace = context, namespace
        known = contexts()
        if context not in known:
            told = ", ".join(known) or "none, or there is no such file"
            raise InvalidInput(f"the kubeconfig lacks the context {context!r}: it has {told}")
        settings = client.Configuration()
        try:
            config.load_kube_config(_file(), context=context, client_configuration=settings)
        except (config.ConfigException, OSError, ValueError) as error:
            raise InvalidInput(f"the kubeconfig's context {context!r}: {error}") from None
        settings.retries = False
        self._settings = settings
        self._api = client.ApiClient(settings)

    @property
    def place(self) -> str:
        """The namespace, for messages."""
        return f"the namespace {self.namespace} of {self.context}"

    def path(self, kind: str, name: str = "", *, everywhere: bool = False) -> str:
        """The path of a kind or an object, as `pods`; of the namespace unless `everywhere`."""
        group = GROUPS.get(kind, "api/v1")
        inside = "" if everywhere else f"/namespaces/{quote(self.namespace)}"
        return f"/{group}{inside}/{kind}" + (f"/{quote(name)}" if name else "")

    def get(self, kind: str, name: str) -> Object | None:
        """An object; None where it is not there."""
        value: Object | None = self.ask("GET", self.path(kind, name), fine=(_GONE,))
        return value

    def list(self, kind: str, labels: str = "", *, everywhere: bool = False) -> list[Object]:
        """The objects of a kind, those with labels, as `app=judge,tier`."""
        query = {"labelSelector": labels} if labels else {}
        found = self.ask("GET", self.path(kind, everywhere=everywhere), query)
        return list((found or {}).get("items", ()))

    def create(self, kind: str, body: Object) -> bool:
        """Makes an object; False where one with its name is there."""
        query = {"fieldValidation": "Strict"}
        return self.ask("POST", self.path(kind), query, body, fine=(_THERE,)) is not None

    def delete(self, kind: str, name: str) -> bool:
        """Deletes an object and what it owns; False where it is not there."""
        query = {"propagationPolicy": "Background"}
        return self.ask("DELETE", self.path(kind, name), query, fine=(_GONE,)) is not None

    def may(self, verb: str, kind: str, part: str = "", *, everywhere: bool = False) -> bool:
        """Whether this user may do something, as `create`, `pods`, `portforward`."""
        group = GROUPS.get(kind, "").split("/")
        asked = {"verb": verb, "resource": kind, "subresource": part}
        asked |= {"group": group[1]} if len(group) > 1 else {}
        asked |= {} if everywhere else {"namespace": self.namespace}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        body = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
        reply = self.ask("POST", path, body=body | {"spec": {"resourceAttributes": asked}})
        return bool(reply and reply["status"].get("allowed"))

    def user(self) -> str:
        """The name by which the cluster knows this user."""
        body = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        reply = self.ask("POST", path, body=body)
        return str(reply["status"]["userInfo"]["username"]) if reply else ""

    def log(self, pod: str, container: str, *, last: int = 0, previous: bool = False) -> str:
        """What a container has said; of the one before it, where `previous`. Empty without one.

        Args:
            last: lines from the end; 0: all.
        """
        query = {"container": container} | ({"tailLines": str(last)} if last else {})
        query |= {"previous": "true"} if previous else {}
        try:
            with self._reply("GET", self.path("pods", pod) + "/log", query) as reply:
                return bytes(reply.data).decode("utf-8", "replace")
        except Refused as error:
            if error.status == 400:  # its container has not started
                return ""
            raise

    def follow(self, pod: str, container: str) -> Iterator[bytes]:
        """What a container says, until it ends."""
        query = {"container": container, "follow": "true"}
        path = self.path("pods", pod) + "/log"
        with self._reply("GET", path, query, seconds=None) as reply:
            try:
                yield from reply.stream(2**16)
            except _library().HTTPError as error:
                raise Unavailable(f"the log of {pod} broke off: {error}") from None

    def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        *,
        fine: Iterable[int] = (),
    ) -> Any:
        """The reply to a request; None for a status that is fine.

        Raises:
            Refused: the API says no, in its own words.
            Unavailable: it cannot be reached.
        """
        try:
            with self._reply(method, path, query or {}, body) as reply:
                return json.loads(reply.data)
        except Refused as error:
            if error.status in fine:
                return None
            raise

    def socket(self, path: str) -> tuple[str, dict[str, Any]]:
        """A websocket's URL to a path, and what aiohttp needs for it."""
        _, url, headers, *_ = self._request("GET", path, {}, None)
        settings = self._settings
        context = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        if not settings.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file)
        headers.pop("Accept")
        return url.replace("http", "ws", 1), {
            "headers": headers,
            "ssl": context,
            "server_hostname": settings.tls_server_name or None,
            "proxy": settings.proxy,
        }

    def _request(self, method: str, path: str, query: Mapping[str, str], body: Any) -> Any:
        headers = {"Accept": "application/json"}
        headers |= {"Content-Type": "application/json"} if body is not None else {}
        try:
            return self._api.param_serialize(
                *(method, path),
                query_params=list(query.items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
        except _library().config.ConfigException as error:
            raise Unavailable(f"the login of context {self.context!r} fails: {error}") from None

    def _reply(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Any = None,
        *,
        seconds: float | None = _SECONDS,
    ) -> Any:
        try:
            request = self._request(method, path, query, body)
            limit = (_SECONDS, None) if seconds is None else seconds
            reply = self._api.call_api(*request, _request_timeout=limit).response
        except (_library().HTTPError, _library().client.ApiException) as error:
            raise Unavailable(
                f"the cluster of context {self.context!r} cannot be reached at"
                f" {self._settings.host}: {_cause(error)}"
            ) from None
        if reply.status < 400:
            return reply
        said = _words(reply)
        if reply.status in _PASSING or reply.status >= 500:
            raise Unavailable(f"the cluster of {self.context} does not answer: {said}")
        raise Refused(f"the cluster of {self.context} refuses: {said}", reply.status)


def contexts() -> list[str]:
    """The names of the kubeconfig's contexts; none without a kubeconfig."""
    config = _library().config
    try:
        known, _ = config.list_kube_config_contexts(_file())
    except (config.ConfigException, OSError, ValueError):
        return []
    return [each["name"] for each in known]


def _file() -> str | None:
    """The kubeconfig; the client itself reads the variable when it is loaded."""
    return os.environ.get("KUBECONFIG") or None


def _words(reply: Any) -> str:
    try:
        return str(json.loads(reply.data)["message"])
    except (ValueError, KeyError, TypeError):
        return f"{reply.status} {reply.reason}"


def _cause(error: Exception) -> str:
    """The reason behind an error of urllib3."""
    reason = getattr(error, "reason", None) or error
    return str(reason).rpartition(">: ")[2] or str(reason)
