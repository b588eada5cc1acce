"""The calls of Kubernetes' API that the operator makes beside kopf's, by its official client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from tuneproof.operator.objects import GROUP, PLURAL, VERSION, AdapterObject
from tuneproof.servicekit.errors import InvalidInput, Unavailable

_SECONDS = 20.0
_GONE = frozenset({404, 409})
"""Not there, or another one by the same name."""
_NONE: frozenset[int] = frozenset()


class Cluster:
    """One namespace of the cluster that this process is told of: by its pod, or a kubeconfig.

    Its calls raise Unavailable when the API does not answer, or refuses.

    Raises:
        InvalidInput: when this process knows no cluster.
    """

    def __init__(self, namespace: str) -> None:
        from kubernetes import client, config  # noqa: PLC0415 - an optional package

        settings = client.Configuration()
        try:
            try:
                config.load_incluster_config(client_configuration=settings)
            except config.ConfigException:
                config.load_kube_config(client_configuration=settings)
        except config.ConfigException as error:
            raise InvalidInput(
                "the operator needs a cluster: a pod whose service account has a token, or a"
                f" kubeconfig ({error})"
            ) from None
        settings.retries = False
        api = client.ApiClient(settings)
        self.namespace = namespace
        self._objects = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)
        self._definitions = client.ApiextensionsV1Api(api)

    async def objects(self) -> list[AdapterObject]:
        """All that are there."""
        listed = await self._ask(self._objects.list_namespaced_custom_object, _NONE, **self._kind)
        return [AdapterObject.of(body) for body in listed["items"]]

    async def tell(self, one: AdapterObject, status: Mapping[str, Any]) -> AdapterObject | None:
        """Writes an object's status, in which None removes a field.

        Returns:
            the object as it is then; None when it is not there any more.
        """
        body = {"metadata": {"uid": one.uid}, "status": status}
        call = self._objects.patch_namespaced_custom_object_status
        said = await self._ask(call, _GONE, **self._kind, name=one.name, body=body)
        return AdapterObject.of(said) if said else None

    async def going(self) -> bool:
        """Whether the kind itself or the namespace is being removed: its objects go with it, and
        nobody has deleted an adapter. Also if that cannot be known."""
        try:
            kind = await self._ask(
                self._definitions.read_custom_resource_definition, _NONE, name=f"{PLURAL}.{GROUP}"
            )
            space = await self._ask(self._core.read_namespace, _NONE, name=self.namespace)
        except Unavailable:
            return True
        return bool(kind.metadata.deletion_timestamp or space.metadata.deletion_timestamp)

    @property
    def _kind(self) -> dict[str, str]:
        return {
            "group": GROUP,
            "version": VERSION,
            "plural": PLURAL,
            "namespace": self.namespace,
        }

    async def _ask(self, call: Callable[..., Any], fine: frozenset[int], **arguments: Any) -> Any:
        """Makes a call. Returns None when it ends with a status that is fine."""
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        try:
            return await asyncio.to_thread(call, _request_timeout=_SECONDS, **arguments)
        except ApiException as error:
            if error.status in fine:
                return None
            raise Unavailable(f"the cluster's API refuses: {error.status} {error.body}") from error
        except HTTPError as error:
            raise Unavailable(f"the cluster's API cannot be reached: {error}") from error
