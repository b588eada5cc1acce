"""The components that an overlay may add to the services: Weaviate, TEI, mutual TLS."""

from __future__ import annotations

import os
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tuneproof_retriever.settings import RetrieverSettings

from .test_manifests import (
    ROOT,
    SERVICES,
    USER,
    WORKLOADS,
    Manifest,
    build,
    of_kind,
    pods,
    settings_of,
)

COMPONENTS = ROOT / "deploy/k8s/components"
TOGETHER = (
    "weaviate",
    "tei",
    "tei-gpu",
    "weaviate+tei",
    "weaviate+tei-gpu",
    "mtls",
    "weaviate+mtls",
)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def built(kubectl: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Manifest]]:
    """The base with components, by their names."""
    found = {}
    for names in TOGETHER:
        folder = tmp_path_factory.mktemp("overlay")
        overlay = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(ROOT / "deploy/k8s/base", folder)],
            "components": [os.path.relpath(COMPONENTS / name, folder) for name in names.split("+")],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        found[names] = build(kubectl, folder)
    return found


def container_of(manifests: list[Manifest], name: str) -> Manifest:
    (container,) = dict(pods(manifests))[name]["containers"]
    return container


def data_of(manifests: list[Manifest], name: str) -> dict[str, str]:
    container = container_of(manifests, name)
    config = container["envFrom"][0]["configMapRef"]["name"]
    return of_kind(manifests, "ConfigMap")[config]["data"]


def secrets_of(container: Manifest) -> dict[str, tuple[str, str]]:
    refs = {each["name"]: each.get("valueFrom", {}) for each in container.get("env", [])}
    return {
        name: (ref["secretKeyRef"]["name"], ref["secretKeyRef"]["key"])
        for name, ref in refs.items()
        if "secretKeyRef" in ref
    }


def test_every_component_is_tested() -> None:
    names = {path.parent.name for path in COMPONENTS.glob("*/kustomization.yaml")}
    assert names == {name for together in TOGETHER for name in together.split("+")}


def test_every_manifest_is_valid_and_in_the_namespace(built: dict[str, list[Manifest]]) -> None:
    for manifests in built.values():
        for manifest in manifests:
            if not manifest["apiVersion"].startswith("cert-manager.io/"):
                kubernetes_validate.validate(manifest, "1.36", strict=True)
            if manifest["kind"] != "Namespace":
                assert manifest["metadata"]["namespace"] == "tuneproof"
        assert of_kind(manifests, "Secret") == {}


def test_pods_meet_the_restricted_standard(built: dict[str, list[Manifest]]) -> None:
    for manifests in built.values():
        for name, pod in pods(manifests):
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["runAsUser"] == USER
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert pod["automountServiceAccountToken"] is False
            assert pod["enableServiceLinks"] is False
            (container,) = pod["containers"]
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"], name
            workload = of_kind(manifests, *WORKLOADS)[name]
            claims = workload["spec"].get("volumeClaimTemplates", [])
            known = {each["name"] for each in pod["volumes"]}
            known |= {each["metadata"]["name"] for each in claims}
            assert {each["name"] for each in container["volumeMounts"]} == known
            assert container["image"].partition(":")[2] not in {"", "latest"} or (
                container["image"].startswith("tuneproof/")  # an overlay names its tag
            )


def test_services_lead_to_ports_that_are_open(built: dict[str, list[Manifest]]) -> None:
    for manifests in built.values():
        for service in of_kind(manifests, "Service").values():
            name = service["spec"]["selector"]["app.kubernetes.io/name"]
            ports = {port["name"] for port in container_of(manifests, name)["ports"]}
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_the_retrievers_settings_fit_together(
    built: dict[str, list[Manifest]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for names, manifests in built.items():
        container = container_of(manifests, "retriever")
        variables = data_of(manifests, "retriever")
        others = [each["name"] for each in container.get("env", [])]
        fields = {f"TUNEPROOF_RETRIEVER_{name.upper()}" for name in RetrieverSettings.model_fields}
        assert {*variables, *others} <= fields
        with monkeypatch.context() as patch:
            for variable, value in variables.items():
                patch.setenv(variable, value)
            settings = RetrieverSettings()
        assert (settings.store == "weaviate") == ("weaviate" in names)
        assert (settings.embedder == "tei") == ("tei" in names)
        for url in (settings.weaviate_url, settings.embedder_url):
            host, _, port = url.removeprefix("http://").partition(":")
            service = of_kind(manifests, "Service").get(host)
            if service is not None:
                assert int(port) in [each["port"] for each in service["spec"]["ports"]]


def test_retrievers_on_weaviate_are_two_and_have_its_key_in_a_file(
    built: dict[str, list[Manifest]],
) -> None:
    manifests = built["weaviate"]
    retriever = of_kind(manifests, "StatefulSet")["retriever"]
    assert retriever["spec"]["replicas"] == 2
    assert "volumeClaimTemplates" not in retriever["spec"]
    data = data_of(manifests, "retriever")
    file = Path(data["TUNEPROOF_RETRIEVER_WEAVIATE_API_KEY_FILE"])
    mounts = container_of(manifests, "retriever")["volumeMounts"]
    (volume,) = [each["name"] for each in mounts if Path(each["mountPath"]) == file.parent]
    volumes = {each["name"]: each for each in dict(pods(manifests))["retriever"]["volumes"]}
    secret = volumes[volume]["secret"]
    assert (secret["secretName"], secret["items"]) == (
        "tuneproof-weaviate",
        [{"key": "api-key", "path": file.name}],
    )


def test_weaviate_asks_for_a_key_and_tells_nobody_anything(
    built: dict[str, list[Manifest]],
) -> None:
    manifests = built["weaviate"]
    container, data = container_of(manifests, "weaviate"), data_of(manifests, "weaviate")
    assert data["AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED"] == "false"
    assert data["AUTHENTICATION_APIKEY_ENABLED"] == "true"
    for switch in ("DISABLE_TELEMETRY", "API_BASED_MODULES_DISABLED", "GO_PROFILING_DISABLE"):
        assert data[switch] == "true"
    assert data["ENABLE_MODULES"] == "backup-s3"
    assert data["BACKUP_S3_BUCKET"]
    assert secrets_of(container) == {
        "AUTHENTICATION_APIKEY_ALLOWED_KEYS": ("tuneproof-weaviate", "api-key"),
        "CLUSTER_BASIC_AUTH_PASSWORD": ("tuneproof-weaviate", "cluster-password"),
        "AWS_ACCESS_KEY_ID": ("tuneproof-weaviate", "s3-access-key-id"),
        "AWS_SECRET_ACCESS_KEY": ("tuneproof-weaviate", "s3-secret-access-key"),
    }


def callers_of(manifests: list[Manifest], name: str) -> dict[str, set[str]]:
    """Names of the ports that a NetworkPolicy opens, by who may call; empty: everybody."""
    ports = {each["containerPort"]: each["name"] for each in container_of(manifests, name)["ports"]}
    spec = of_kind(manifests, "NetworkPolicy")[name]["spec"]
    assert spec["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": name}}
    assert spec["policyTypes"] == ["Ingress"]
    everybody = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": ""}}}
    allowed: dict[str, set[str]] = {}
    for rule in spec["ingress"]:
        for peer in rule.get("from", [everybody]):
            caller = peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
            allowed[caller] = {ports[each["port"]] for each in rule["ports"]}
    return allowed


def test_only_retrievers_reach_weaviates_api_and_only_its_nodes_each_other(
    built: dict[str, list[Manifest]],
) -> None:
    assert callers_of(built["weaviate"], "weaviate") == {
        "retriever": {"http", "grpc"},
        "weaviate": {"gossip", "data", "raft", "raft-rpc"},
        "": {"metrics"},
    }


@pytest.mark.parametrize("names", ["tei", "tei-gpu", "weaviate+tei"])
def test_only_retrievers_reach_tei(built: dict[str, list[Manifest]], names: str) -> None:
    assert callers_of(built[names], "tei") == {"retriever": {"http"}, "": {"metrics"}}


def test_tei_never_truncates_on_cpu_and_gpu(built: dict[str, list[Manifest]]) -> None:
    for names, tag in (("tei", "cpu-1.9"), ("tei-gpu", "hopper-1.9")):
        container = container_of(built[names], "tei")
        assert container["image"].endswith(f":{tag}")
        assert "--auto-truncate=false" in container["args"]
        assert secrets_of(container) == {"API_KEY": ("tuneproof-tei", "api-key")}
        limits = container["resources"]["limits"]
        assert ("nvidia.com/gpu" in limits) == (names == "tei-gpu")
        key = secrets_of(container_of(built[names], "retriever"))
        assert key == {"TUNEPROOF_RETRIEVER_EMBEDDER_API_KEY": ("tuneproof-tei", "api-key")}


@pytest.mark.parametrize("names", ["mtls", "weaviate+mtls"])
def test_with_mtls_every_service_shows_and_wants_a_certificate_that_names_it(
    built: dict[str, list[Manifest]], names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = built[names]
    certificates = of_kind(manifests, "Certificate")
    issuers = of_kind(manifests, "Issuer")
    for certificate in certificates.values():
        assert certificate["spec"]["issuerRef"]["name"] in issuers
    authority = issuers["tuneproof"]["spec"]["ca"]["secretName"]
    (signing,) = [one["spec"] for one in certificates.values() if one["spec"].get("isCA")]
    assert signing["secretName"] == authority
    for name in SERVICES:
        container = container_of(manifests, name)
        with monkeypatch.context() as patch:
            for variable, value in data_of(manifests, name).items():
                patch.setenv(variable, value)
            settings = settings_of(name)()
        assert settings.tls_client_certificates
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        mount = mounts[str(settings.tls_dir)]
        assert "subPath" not in mount  # which would never follow a renewal
        volumes = {each["name"]: each for each in dict(pods(manifests))[name]["volumes"]}
        shown = certificates[name]["spec"]
        assert volumes[mount["name"]]["secret"]["secretName"] == shown["secretName"]
        assert {"server auth", "client auth"} <= set(shown["usages"])
        assert {name, f"{name}.tuneproof.svc.cluster.local"} <= set(shown["dnsNames"])
        (grpc,) = [
            port
            for port in of_kind(manifests, "Service")[name]["spec"]["ports"]
            if port["name"] == "grpc"
        ]
        assert grpc["appProtocol"] == "https"
        # The kubelet speaks no TLS to probes of gRPC: their port stays as it is.
        assert container["readinessProbe"]["grpc"]["port"] == 50052
        if name == "judge":
            assert settings.endpoint_tls_dir == settings.tls_dir
            host = settings.endpoint_url.removeprefix("https://").partition(":")[0]
            assert host in certificates["generator"]["spec"]["dnsNames"]
    for name in ("orchestrator", "prometheus"):
        assert certificates[name]["spec"]["usages"] == ["digital signature", "client auth"]
