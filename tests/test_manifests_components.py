"""Components: the retriever's servers, Weaviate and TEI, and mutual TLS."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate
import pytest
import typer.main

from tuneproof.cli.main import app
from tuneproof.loadtest import read_references, read_slo
from tuneproof.sdk.endpoints import TLS_DIR

from .rendering import (
    K8S,
    Built,
    Manifest,
    build,
    container_of,
    of_kind,
    pods,
    role,
    template,
    together,
    variables_of,
    write,
)
from .test_manifests import SERVICES, settings_with

pytestmark = [pytest.mark.long, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def stores(kubectl: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The base with components, by their names."""
    return {
        names: together(kubectl, tmp_path_factory.mktemp("overlay"), names.split("+"))
        for names in (
            "weaviate",
            "tei",
            "weaviate+tei-gpu",
            "weaviate+observability+mtls+mtls-pool",
        )
    }


def workload_of(manifests: list[Manifest], name: str) -> Manifest:
    (found,) = [workload for workload, _, _ in pods(manifests) if role(workload) == name]
    return found


def data_of(manifests: list[Manifest], name: str) -> dict[str, str]:
    return variables_of(manifests, container_of(workload_of(manifests, name)))


def secrets_of(container: Manifest) -> dict[str, tuple[str, str]]:
    refs = {each["name"]: each.get("valueFrom", {}) for each in container.get("env", [])}
    return {
        name: (ref["secretKeyRef"]["name"], ref["secretKeyRef"]["key"])
        for name, ref in refs.items()
        if "secretKeyRef" in ref
    }


def test_the_retrievers_settings_fit_together(
    stores: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    for names, manifests in stores.items():
        settings = settings_with("retriever", data_of(manifests, "retriever"), monkeypatch)
        assert (settings.store == "weaviate") == ("weaviate" in names)
        assert (settings.embedder == "tei") == ("tei" in names)
        for url in (settings.weaviate_url, settings.embedder_url):
            host, _, port = url.removeprefix("http://").partition(":")
            service = of_kind(manifests, "Service").get(host)
            if service is not None:
                assert int(port) in [each["port"] for each in service["spec"]["ports"]]


def test_retrievers_on_weaviate_are_two_and_have_its_key_in_a_file(
    stores: Built,
) -> None:
    manifests = stores["weaviate"]
    retriever = of_kind(manifests, "StatefulSet")["retriever"]
    assert retriever["spec"]["replicas"] == 2
    assert "volumeClaimTemplates" not in retriever["spec"]
    data = data_of(manifests, "retriever")
    file = Path(data["TUNEPROOF_RETRIEVER_WEAVIATE_API_KEY_FILE"])
    mounts = container_of(workload_of(manifests, "retriever"))["volumeMounts"]
    (volume,) = [each["name"] for each in mounts if Path(each["mountPath"]) == file.parent]
    volumes = {each["name"]: each for each in template(retriever)["spec"]["volumes"]}
    secret = volumes[volume]["secret"]
    assert (secret["secretName"], secret["items"]) == (
        "tuneproof-weaviate",
        [{"key": "api-key", "path": file.name}],
    )


def test_weaviate_asks_for_a_key_and_tells_nobody_anything(
    stores: Built,
) -> None:
    manifests = stores["weaviate"]
    container, data = (
        container_of(workload_of(manifests, "weaviate")),
        data_of(manifests, "weaviate"),
    )
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
    ports = {
        each["containerPort"]: each["name"]
        for each in container_of(workload_of(manifests, name))["ports"]
    }
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
    stores: Built,
) -> None:
    assert callers_of(stores["weaviate"], "weaviate") == {
        "retriever": {"http", "grpc"},
        "weaviate": {"gossip", "data", "raft", "raft-rpc"},
        "": {"metrics"},
    }


@pytest.mark.parametrize("names", ["tei", "weaviate+tei-gpu"])
def test_only_retrievers_reach_tei(stores: Built, names: str) -> None:
    assert callers_of(stores[names], "tei") == {"retriever": {"http"}, "": {"metrics"}}


def test_tei_never_truncates_on_cpu_and_gpu(stores: Built) -> None:
    for names, tag in (("tei", "cpu-1.9"), ("weaviate+tei-gpu", "hopper-1.9")):
        container = container_of(workload_of(stores[names], "tei"))
        assert container["image"].endswith(f":{tag}")
        assert "--auto-truncate=false" in container["args"]
        assert secrets_of(container) == {"API_KEY": ("tuneproof-tei", "api-key")}
        limits = container["resources"]["limits"]
        assert ("nvidia.com/gpu" in limits) == ("gpu" in names)
        key = secrets_of(container_of(workload_of(stores[names], "retriever")))
        assert key == {"TUNEPROOF_RETRIEVER_EMBEDDER_API_KEY": ("tuneproof-tei", "api-key")}


def test_with_mtls_every_service_shows_and_wants_a_certificate_that_names_it(
    stores: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = stores["weaviate+observability+mtls+mtls-pool"]
    certificates = of_kind(manifests, "Certificate")
    issuers = of_kind(manifests, "Issuer")
    for certificate in certificates.values():
        assert certificate["spec"]["issuerRef"]["name"] in issuers
    authority = issuers["tuneproof"]["spec"]["ca"]["secretName"]
    (signing,) = [one["spec"] for one in certificates.values() if one["spec"].get("isCA")]
    assert signing["secretName"] == authority
    for name in SERVICES:
        workload = workload_of(manifests, name)
        container = container_of(workload)
        settings = settings_with(name, data_of(manifests, name), monkeypatch)
        assert settings.tls_client_certificates
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        mount = mounts[str(settings.tls_dir)]
        assert "subPath" not in mount  # which would never follow a renewal
        volumes = {each["name"]: each for each in template(workload)["spec"]["volumes"]}
        secret = volumes[mount["name"]]["secret"]["secretName"]
        (shown,) = [one for one in certificates.values() if one["spec"]["secretName"] == secret]
        assert {"server auth", "client auth"} <= set(shown["spec"]["usages"])
        (service,) = [
            each
            for each in of_kind(manifests, "Service").values()
            if each["spec"]["selector"].get("app.kubernetes.io/name") == name
        ]
        # The pool has a name of its own here, and its certificate, secret and service have it too.
        assert ("two-gpus" in service["metadata"]["name"]) == (name == "generator")
        assert service["metadata"]["name"] in shown["spec"]["dnsNames"]
        (grpc,) = [port for port in service["spec"]["ports"] if port["name"] == "grpc"]
        assert grpc["appProtocol"] == "https"
        # The kubelet speaks no TLS to probes of gRPC: their port stays as it is.
        assert container["readinessProbe"]["grpc"]["port"] == 50052
        if name == "judge":
            assert settings.endpoint_tls_dir == settings.tls_dir
            assert settings.endpoint_url.startswith("https://")
        assert "metrics.tuneproof" in shown["spec"]["dnsNames"]
    (page,) = of_kind(manifests, "PodMonitor")["tuneproof"]["spec"]["podMetricsEndpoints"]
    assert page["scheme"] == "https"
    assert page["tlsConfig"]["serverName"] == "metrics.tuneproof"
    shown = certificates["prometheus"]["spec"]["secretName"]
    assert page["tlsConfig"]["keySecret"] == {"name": shown, "key": "tls.key"}
    for name in ("orchestrator", "prometheus"):
        assert certificates[name]["spec"]["usages"] == ["digital signature", "client auth"]


@pytest.fixture(scope="module")
def loadtest(kubectl: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    """The Job, under mTLS."""
    folder = tmp_path_factory.mktemp("job")
    write(folder, resources=[K8S / "jobs/loadtest"], components=[K8S / "components/mtls-client"])
    return build(kubectl, folder)


def test_the_load_tests_job_is_a_command_that_finds_its_files(loadtest: list[Manifest]) -> None:
    ((job, pod, container),) = pods(loadtest)
    kubernetes_validate.validate(job, "1.36", strict=True)
    assert template(job)["metadata"]["labels"]["tuneproof.dev/client"] == "true"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {each["name"] for each in container["volumeMounts"]} == {
        each["name"] for each in pod["volumes"]
    }
    command = typer.main.get_command(app)
    for name in container["args"][:2]:
        command = command.commands[name]
    context = command.make_context("swap", container["args"][2:])
    files = of_kind(loadtest, "ConfigMap")[pod["volumes"][0]["configMap"]["name"]]["data"]
    mounted = {f"/etc/loadtest/{name}" for name in files}
    assert {str(context.params["pool"]), str(context.params["slo"])} == mounted
    assert context.params["against_base"]
    variables = variables_of(loadtest, container)
    folders = [Path(each["mountPath"]) for each in container["volumeMounts"]]
    assert Path(variables["TUNEPROOF_TOKEN_FILE"]).parent in folders
    assert Path(variables[TLS_DIR]) in folders


def test_the_load_tests_example_files_are_read(tmp_path: Path) -> None:
    folder = K8S / "jobs/loadtest"
    assert len(read_references(folder / "refs.txt")) > 4
    assert read_slo(folder / "slo.yaml").failed == 0
