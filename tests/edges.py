"""Who may call whom in the namespace, under the component network-policies.

`test_manifests_surroundings.py` reads it off the policies, `cluster/test_edges.py` tries it.
"""

from __future__ import annotations

SERVICES = ("retriever", "generator", "trainer", "judge")
OUTSIDE = {
    "a client": {"tuneproof.dev/client": "true"},
    "a stranger": {},
}
"""Labels of pods that are in no manifest."""

EDGES = frozenset(
    {
        *(("a client", service, 50051) for service in SERVICES),
        ("a client", "generator", 8000),
        ("a client", "judge", 8000),
        ("judge", "generator", 8000),
        ("adapter-operator", "generator", 50051),
        ("retriever", "weaviate", 8080),
        ("retriever", "weaviate", 50051),
        ("retriever", "tei", 8080),
        *(("weaviate", "weaviate", port) for port in (7100, 7101, 8300, 8301)),
        ("picker", "generator", 9090),
    }
)
"""Source, target and TCP port."""

OF_API = ("trainer", "picker", "adapter-operator")
"""Who calls the cluster's API."""
