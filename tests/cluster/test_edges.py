"""Who reaches whom under the component network-policies: every pair and port, by connections.

A pod for each service, with its labels, answers on every port and tries all ports of the others.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from ..edges import EDGES, OF_API, OUTSIDE, SERVICES
from ..rendering import EVERYTHING, Manifest, of_kind, pods, role, template, together
from . import connections
from .cluster import HOST, Cluster
from .scene import PYTHON, Scene, scene
from .training import job_of

pytestmark = pytest.mark.timeout(300)

Labels = Mapping[str, str]
Edge = tuple[str, str, int]
"""Source, target and port."""

SCRIPT = [PYTHON, "-I", "-S", connections.__file__]
NAMESPACES: Mapping[str, Labels] = {
    "monitoring": {},
    "edges-gateway": {"tuneproof.dev/clients": "true"},
    "edges-foreign": {},
}
"""Other namespaces by their labels; each has a pod of the same name."""
TWINS = ("weaviate", "worker")
"""Of which one calls another."""
OTHER_PORTS = {443, 6443, 29500}
"""That no container declares: those of the API and of HTTPS, and one that NCCL may choose."""
METRICS = {("weaviate", 2112), ("tei", 9000)}
"""Open to other namespaces: by policies of their own, which stand without the component too."""
API = {("10.90.128.1", 443), ("10.90.0.2", 6443)}
"""The service, and what is behind it."""
OUT = {(HOST, 443), (HOST, 8443)}
"""This machine is outside the cluster."""


@dataclass(frozen=True)
class Field:
    """The pods, and what they reached."""

    labels: dict[str, Labels]
    """Of each kind of pod in the namespace."""
    ports: set[int]
    reached: dict[str, set[Edge]]
    """Between kinds of pods, by protocol: tcp, udp, name."""

    def labelled(self, name: str, value: str) -> set[str]:
        return {kind for kind, labels in self.labels.items() if labels.get(name) == value}


@pytest.fixture(scope="module")
def field(
    cluster: Cluster, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Field]:
    folder = tmp_path_factory.mktemp("edges")
    manifests = together(cluster.program, folder, EVERYTHING)
    labels = labels_of(manifests, folder)
    declared = {
        port["containerPort"] for *_, one in pods(manifests) for port in one.get("ports", [])
    }
    outside = [sys.executable, connections.__file__, "listen", HOST]
    outside += [str(port) for host, port in OUT]
    with ExitStack() as stack:
        stack.callback(subprocess.Popen(outside).kill)
        home = stack.enter_context(scene(cluster, f"edges-{secrets.token_hex(3)}"))
        policies = of_kind(manifests, "NetworkPolicy").values()
        cluster.kubectl.apply(*(home.moved(policy) for policy in policies))
        places = {kind: (home, its) for kind, its in labels.items()}
        for name, its in NAMESPACES.items():
            places[name] = (stack.enter_context(scene(cluster, name, its)), {})
        yield Field(labels, declared | OTHER_PORTS, tried(places, declared | OTHER_PORTS))


def labels_of(manifests: list[Manifest], folder: Path) -> dict[str, Labels]:
    found = {role(each): template(each)["metadata"]["labels"] for each, *_ in pods(manifests)}
    profiles = folder / "profiles.yaml"
    (maps,) = [
        each["data"]
        for name, each in of_kind(manifests, "ConfigMap").items()
        if name.startswith("trainer-jobs-")
    ]
    profiles.write_text(maps["profiles.yaml"])
    worker = job_of(profiles, "h100")["spec"]["template"]["metadata"]["labels"]
    return {**found, **OUTSIDE, "worker": worker}


def tried(places: Mapping[str, tuple[Scene, Labels]], ports: set[int]) -> dict[str, set[Edge]]:
    """Starts the pods and has each try everything."""
    kinds = {kind.replace(" ", "-"): kind for kind in places}
    kinds |= {f"{kind}-2": kind for kind in TWINS}
    kubectl = next(iter(places.values()))[0].kubectl
    kubectl.apply(*(listener(*places[kind], pod, ports) for pod, kind in kinds.items()))
    addresses: dict[str, str] = {}
    for place in {place.namespace: place for place, _ in places.values()}.values():
        ready = ("--for=condition=Ready", "pod", "--all", "--timeout=60s")
        kubectl("wait", *ready, "--namespace", place.namespace)
        addresses |= place.addresses()
    asked = [
        *(("tcp", address, port) for address, port in product(addresses.values(), ports)),
        *(("udp", address, 7100) for address in addresses.values()),
        *(("tcp", *address) for address in sorted(API | OUT)),
        ("name", "kubernetes.default.svc.cluster.local", 443),
    ]
    named = {address: kinds[pod] for pod, address in addresses.items()}
    reached: dict[str, set[Edge]] = {"tcp": set(), "udp": set(), "name": set()}

    def ask(pod: str) -> list[bool]:
        if pod == HOST:
            return asyncio.run(connections.attempts(asked))
        inside = ("--namespace", places[kinds[pod]][0].namespace, pod, "--stdin", "--")
        return json.loads(kubectl("exec", *inside, *SCRIPT, "try", given=json.dumps(asked)))

    kinds[HOST] = HOST
    with ThreadPoolExecutor(len(kinds)) as threads:
        for pod, answers in zip(kinds, threads.map(ask, kinds), strict=True):
            for (protocol, address, port), answer in zip(asked, answers, strict=True):
                own = address == addresses.get(pod)
                assert answer or not own, f"{pod} does not listen on {port}"
                if answer and not own:
                    edge = (kinds[pod], named.get(address, address), port)
                    reached[protocol].add(edge)
    return reached


def listener(place: Scene, labels: Labels, name: str, ports: set[int]) -> Manifest:
    in_order = sorted(ports)
    command = [*SCRIPT, "listen", "0.0.0.0", *map(str, in_order)]
    probe = {"tcpSocket": {"port": in_order[-1]}, "periodSeconds": 1}
    pod = place.pod(name, labels, command, readinessProbe=probe)
    low_ports = {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}
    pod["spec"]["securityContext"]["sysctls"] = [low_ports]
    return pod


def test_every_pair_reaches_each_other_by_the_listed_edges_and_no_others(field: Field) -> None:
    ours = field.labelled("app.kubernetes.io/part-of", "tuneproof")
    https = field.labelled("tuneproof.dev/egress", "https")
    assert {"generator", "pull", "worker"} <= https
    kinds = {*field.labels, *NAMESPACES}
    expected = {
        *EDGES,
        *product(["worker"], ["worker"], field.ports),
        # From other namespaces.
        *product(["monitoring"], ours, [9090]),
        *product(["edges-gateway"], SERVICES, [50051]),
        *product(["edges-gateway"], ["generator", "judge"], [8000]),
        ("edges-gateway", "picker", 9002),
        *((name, *each) for name in (*NAMESPACES, HOST) for each in METRICS),
        # Other namespaces are in nobody's way, by these policies.
        *(
            (one, other, port)
            for one, other in product([*NAMESPACES, HOST], NAMESPACES)
            for port in field.ports
            if one != other
        ),
        *product(OF_API, NAMESPACES, [443, 6443]),
        *product(https, NAMESPACES, [443]),
    }
    found = {edge for edge in field.reached["tcp"] if edge[1] in kinds}
    assert found - expected == set()
    assert expected - found == set()


def test_datagrams_pass_between_nodes_of_weaviate_and_workers_only(field: Field) -> None:
    inside = {edge for edge in field.reached["udp"] if edge[0] in field.labels}
    assert inside == {("weaviate", "weaviate", 7100), ("worker", "worker", 7100)}


def test_everybody_finds_names_and_few_the_clusters_api_or_what_is_outside(field: Field) -> None:
    assert {edge[0] for edge in field.reached["name"]} >= {*field.labels, *NAMESPACES}
    outward = {
        edge for edge in field.reached["tcp"] if edge[1:] in API | OUT and edge[0] in field.labels
    }
    assert outward == {
        *((kind, *address) for kind in OF_API for address in API),
        *product(OF_API, [HOST], [443]),
        # Behind the service of the API is port 6443.
        *product(field.labelled("tuneproof.dev/egress", "https"), [HOST], [443]),
    }
