"""The calls of Kubernetes' API that the trainer makes, by its official client.

Each raises Unavailable when the API does not answer, and InvalidInput when it refuses, with the
API's own words.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from tuneproof.servicekit.errors import InvalidInput, Unavailable

_SECONDS = 20.0
_GONE, _THERE = 404, 409
_PASSING = frozenset({0, 408, 429})
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Cluster:
    """One namespace of a cluster. Its calls block.

    Args:
        namespace: if empty, that of this pod, or of the kubeconfig's context.

    Raises:
        InvalidInput: when this process knows no cluster.
    """

    def __init__(self, namespace: str = "") -> None:
        settings = client.Configuration()
        try:
            try:
                config.load_incluster_config(client_configuration=settings)
                own = (_ACCOUNT / "namespace").read_text().strip()
            except config.ConfigException:
                config.load_kube_config(client_configuration=settings)
                _, context = config.list_kube_config_contexts()
                own = context["context"].get("namespace", "default")
        except config.ConfigException as error:
            raise InvalidInput(
                "executor kubernetes needs a cluster: a pod whose service account has a token, or"
                f" a kubeconfig ({error})"
            ) from None
        settings.retries = False  # Whoever calls asks again, and knows for how long.
        api = client.ApiClient(settings)
        self.namespace = namespace or own
        self._jobs = client.BatchV1Api(api)
        self._core = client.CoreV1Api(api)

    def create(self, job: dict[str, Any], *, dry_run: bool = False) -> None:
        """Makes a Job, unless it is there. A dry run is refused where the real one would be."""
        more = {"dry_run": "All"} if dry_run else {}
        self._ask(
            self._jobs.create_namespaced_job, _THERE, body=job, field_validation="Strict", **more
        )

    def job(self, name: str) -> Any:
        """A Job; None when it is not there."""
        return self._ask(self._jobs.read_namespaced_job, _GONE, name=name)

    def delete(self, name: str) -> None:
        """Ends a Job: its pods get SIGTERM, and their grace period."""
        self._ask(
            self._jobs.delete_namespaced_job, _GONE, name=name, propagation_policy="Background"
        )

    def pods(self, job: str) -> list[Any]:
        """The pods of a Job that are there."""
        selector = f"batch.kubernetes.io/job-name={job}"
        return list(self._ask(self._core.list_namespaced_pod, label_selector=selector).items)

    def warning(self, name: str) -> str:
        """The newest warning about a Job or pod; empty without one. What the scheduler says is left
        out: a pod's own condition says it, and no longer than it holds."""
        chosen = f"involvedObject.name={name},type=Warning,reason!=FailedScheduling"
        events = self._ask(self._core.list_namespaced_event, field_selector=chosen).items
        newest = max(events, key=_time_of, default=None)
        return f"{newest.reason}: {newest.message}" if newest else ""

    def own_image(self) -> str:
        """The image of the first container of this pod.

        Raises:
            InvalidInput: when this process is not in a pod of the namespace.
        """
        name = socket.gethostname()
        pod = self._ask(self._core.read_namespaced_pod, _GONE, name=name)
        if pod is None:
            raise InvalidInput(
                f"executor kubernetes needs worker_image: no pod {name} in the namespace"
                f" {self.namespace} has an image to take"
            )
        return str(pod.spec.containers[0].image)

    def _ask(self, call: Callable[..., Any], fine: int = 0, **arguments: Any) -> Any:
        """Makes a call. Returns None when it ends with the status that is fine."""
        try:
            return call(namespace=self.namespace, _request_timeout=_SECONDS, **arguments)
        except ApiException as error:
            if error.status == fine:
                return None
            said = _words(error)
            if error.status in _PASSING or error.status >= 500:
                raise Unavailable(f"the cluster's API does not answer: {said}") from error
            raise InvalidInput(f"the cluster refuses: {said}") from error
        except HTTPError as error:
            raise Unavailable(f"the cluster's API cannot be reached: {error}") from error


def _time_of(event: Any) -> datetime:
    return cast(
        datetime, event.last_timestamp or event.event_time or event.metadata.creation_timestamp
    )


def _words(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.status} {error.reason}"
