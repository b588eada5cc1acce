"""Overlay `cpu` from images of the Dockerfile runs the demo's model."""

from __future__ import annotations

import pytest

from .cluster import RESTRICTED, Cluster
from .installation import NAMESPACE, Installation

pytestmark = pytest.mark.timeout(3000)


def test_every_pod_is_ready_in_a_namespace_that_is_restricted(
    cluster: Cluster, installed: Installation
) -> None:
    pods = cluster.get("pods", "--namespace", NAMESPACE)
    ready = {
        each["metadata"]["name"]: [
            status["ready"] for status in each["status"]["containerStatuses"]
        ]
        for each in pods
    }
    judge = next(name for name in ready if name.startswith("judge-"))
    names = ("generator-0", judge, "retriever-0", "retriever-1", "trainer-0", "weaviate-0")
    assert ready == {name: [True] for name in names}
    (space,) = cluster.get("namespace", NAMESPACE)
    assert RESTRICTED.items() <= space["metadata"]["labels"].items()
