"""What components tell a cluster's surroundings: network, gateway, Prometheus, KEDA, S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from .edges import EDGES, OUTSIDE, SERVICES
from .rendering import (
    COMPONENTS,
    EVERYTHING,
    K8S,
    OF_POOLS,
    ROOT,
    WORKLOADS,
    Built,
    Manifest,
    container_of,
    of_kind,
    pods,
    role,
    selects,
    template,
    together,
    variables_of,
)

OBSERVABILITY = ROOT / "deploy/observability"
POOL = "generator-two-gpus"
pytestmark = [pytest.mark.long, pytest.mark.timeout(60)]


@pytest.fixture
def everything(built: Built) -> list[Manifest]:
    return built["everything"]


def test_every_component_of_a_pool_exists() -> None:
    assert set(OF_POOLS) <= set(COMPONENTS)
    assert set(EVERYTHING) <= set(COMPONENTS)


def edges(manifests: list[Manifest]) -> Iterator[tuple[str, str, int]]:
    """Who may call whom in the namespace: what policies of both ends allow."""
    policies = [each["spec"] for each in of_kind(manifests, "NetworkPolicy").values()]
    labels = {
        role(workload): template(workload)["metadata"]["labels"]
        for workload, _, _ in pods(manifests)
    }
    ports = {
        role(workload): [port["containerPort"] for port in container.get("ports", [])]
        for workload, _, container in pods(manifests)
    }
    for source, its in {**labels, **OUTSIDE}.items():
        for target, open_ports in ports.items():
            for port in open_ports:
                out = _allows(policies, "Egress", its, labels[target], port)
                if out and _allows(policies, "Ingress", labels[target], its, port):
                    yield source, target, port


def _allows(
    policies: list[Manifest], kind: str, own: dict[str, str], other: dict[str, str], port: int
) -> bool:
    """Whether a policy of a pod's own lets another pod of the namespace in, or it out to that."""
    chosen = [
        each
        for each in policies
        if kind in each["policyTypes"] and selects(each["podSelector"], own)
    ]
    assert chosen, "isolated by no policy"
    everybody = [{"podSelector": {}}]
    return any(
        port in [each["port"] for each in rule["ports"]]
        and any(
            set(peer) == {"podSelector"} and selects(peer["podSelector"], other)
            for peer in rule.get({"Egress": "to", "Ingress": "from"}[kind], everybody)
        )
        for policy in chosen
        for rule in policy.get(kind.lower(), [])
    )


def test_only_the_needed_edges_are_open(everything: list[Manifest]) -> None:
    assert set(edges(everything)) == EDGES


def test_only_who_needs_it_leaves_the_cluster(built: Built) -> None:
    for name, wanted in (
        ("h100", {"pull"}),
        ("everything", {"pull", "generator", "trainer", "weaviate"}),
    ):
        policies = of_kind(built[name], "NetworkPolicy").values()
        outward = [
            policy["spec"]["podSelector"]
            for policy in policies
            for rule in policy["spec"].get("egress", [])
            if any("ipBlock" in peer for peer in rule.get("to", []))
        ]
        assert wanted == {
            role(workload)
            for workload, _, _ in pods(built[name])
            if any(selects(each, template(workload)["metadata"]["labels"]) for each in outward)
        }


def test_routes_lead_from_the_gateway_to_services(everything: list[Manifest]) -> None:
    (gateway,) = of_kind(everything, "Gateway").values()
    hosts = {each["name"]: each["hostname"] for each in gateway["spec"]["listeners"]}
    assert all(each["tls"]["certificateRefs"] for each in gateway["spec"]["listeners"])
    routes = [each for each in everything if each["kind"] in {"GRPCRoute", "HTTPRoute"}]
    assert len(routes) == 6
    for route in routes:
        (parent,) = route["spec"]["parentRefs"]
        assert parent["name"] == gateway["metadata"]["name"]
        (host,) = route["spec"]["hostnames"]
        first, _, domain = host.partition(".")
        assert f"*.{domain}" == hosts[parent["sectionName"]]
        ((backend,),) = [rule["backendRefs"] for rule in route["spec"]["rules"]]
        target = of_kind(everything, backend.get("kind", "Service"))[backend["name"]]
        if target["kind"] == "Service":
            assert backend["port"] in [port["port"] for port in target["spec"]["ports"]]
        # The pool's are called as it calls its base model.
        assert first == ("two" if backend["name"] == POOL else backend["name"])


def test_the_inference_pool_picks_among_the_generators(everything: list[Manifest]) -> None:
    (pool,) = of_kind(everything, "InferencePool").values()
    generator = of_kind(everything, *WORKLOADS)[POOL]
    labels = template(generator)["metadata"]["labels"]
    assert selects(pool["spec"]["selector"], labels)
    assert labels["inference.networking.k8s.io/engine-type"] == "vllm"
    ports = {each["name"]: each["containerPort"] for each in container_of(generator)["ports"]}
    assert pool["spec"]["targetPorts"] == [{"number": ports["openai"]}]
    reference = pool["spec"]["endpointPickerRef"]
    service = of_kind(everything, "Service")[reference["name"]]
    assert reference["port"]["number"] == service["spec"]["ports"][0]["port"]
    picker = of_kind(everything, *WORKLOADS)[reference["name"]]
    container = container_of(picker)
    assert variables_of(everything, container)["POOL"] == pool["metadata"]["name"]
    assert f"--model-server-metrics-port={ports['metrics']}" in container["args"]
    (volume,) = [each for each in template(picker)["spec"]["volumes"] if each["name"] == "config"]
    data = of_kind(everything, "ConfigMap")[volume["configMap"]["name"]]["data"]
    config = yaml.safe_load(data["picker-config.yaml"])
    used = {each["pluginRef"] for each in config["schedulingProfiles"][0]["plugins"]}
    assert used == {each["type"] for each in config["plugins"]}
    assert {"lora-affinity-scorer", "prefix-cache-scorer"} <= used


def test_keda_scales_the_pool_by_its_own_metrics(everything: list[Manifest]) -> None:
    (scaled,) = of_kind(everything, "ScaledObject").values()
    target = scaled["spec"]["scaleTargetRef"]
    generator = of_kind(everything, target["kind"])[target["name"]]
    assert role(generator) == "generator"
    assert "replicas" not in generator["spec"]
    queries = [each["metadata"]["query"] for each in scaled["spec"]["triggers"]]
    assert queries == [
        'sum(vllm:num_requests_waiting{model_name="two"})',
        'avg(vllm:kv_cache_usage_perc{model_name="two"})',
    ]


@pytest.fixture(scope="module")
def encrypted(kubectl: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    """With mtls, and all components that go with it."""
    names = [each for each in EVERYTHING if each not in {"gateway", "inference-pool"}]
    folder = tmp_path_factory.mktemp("encrypted")
    return together(kubectl, folder, [*names, "mtls", "mtls-pool"])


def test_prometheus_reads_every_page_of_metrics_once_as_it_is_served(
    everything: list[Manifest], encrypted: list[Manifest]
) -> None:
    for manifests in (everything, encrypted):
        monitors = of_kind(manifests, "PodMonitor").values()
        for workload, _, container in pods(manifests, *WORKLOADS):
            labels = template(workload)["metadata"]["labels"]
            (monitor,) = [each for each in monitors if selects(each["spec"]["selector"], labels)]
            (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
            if role(workload) == "adapter-operator":  # What it knows is in its objects.
                continue
            assert endpoint["port"] in [port["name"] for port in container["ports"]]
            variables = variables_of(manifests, container)
            tls = any(name.endswith("_TLS_CLIENT_CERTIFICATES") for name in variables)
            assert endpoint.get("scheme", "http") == ("https" if tls else "http")
            assert tls == (manifests is encrypted and role(workload) in SERVICES)


def test_the_gateway_which_speaks_plaintext_to_pods_is_refused_with_mtls(
    kubectl: Path, tmp_path: Path
) -> None:
    for names in (("gateway", "mtls"), ("mtls", "gateway")):
        with pytest.raises(AssertionError, match="mtls-excludes-gateway"):
            together(kubectl, tmp_path, names)


def test_rules_and_dashboard_are_those_of_the_folder(everything: list[Manifest]) -> None:
    (rules,) = of_kind(everything, "PrometheusRule").values()
    alerts = yaml.safe_load((OBSERVABILITY / "alerts.yaml").read_text())
    assert rules["spec"] == alerts, "make rules"
    dashboard = of_kind(everything, "ConfigMap")["tuneproof-dashboard"]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["data"]["grafana.json"] == (OBSERVABILITY / "grafana.json").read_text()


def test_artifacts_in_s3_need_no_volume(everything: list[Manifest]) -> None:
    assert "artifacts" not in of_kind(everything, "PersistentVolumeClaim")
    urls = set()
    for workload, pod, container in pods(everything):
        if role(workload) in {"generator", "trainer"}:
            urls.add(
                variables_of(everything, container)[f"TUNEPROOF_{role(workload).upper()}_ARTIFACTS"]
            )
            assert "artifacts" not in [each["name"] for each in pod["volumes"]]
            assert {"secretRef": {"name": "tuneproof-s3", "optional": True}} in container["envFrom"]
    (url,) = urls
    assert url.startswith("s3://")


def test_a_pool_is_a_folder_of_few_lines() -> None:
    for path in K8S.glob("pools/*/kustomization.yaml"):
        assert len(path.read_text().splitlines()) <= 16
        assert list(path.parent.iterdir()) == [path]
