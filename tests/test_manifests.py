"""The Kubernetes manifests, as kubectl builds them."""

from __future__ import annotations

import importlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[1]
OVERLAYS = sorted(
    path.parent for path in (ROOT / "deploy/k8s/overlays").glob("*/kustomization.yaml")
)
SERVICES = ("retriever", "generator", "trainer", "judge")
WORKLOADS = ("Deployment", "StatefulSet")
USER = 10001

pytestmark = pytest.mark.timeout(60)

Manifest = dict[str, Any]


@pytest.fixture(scope="session")
def built(kubectl: Path) -> dict[str, list[Manifest]]:
    """The manifests of each overlay, by its name."""
    return {overlay.name: build(kubectl, overlay) for overlay in OVERLAYS}


def build(kubectl: Path, folder: Path) -> list[Manifest]:
    done = subprocess.run(
        [kubectl, "kustomize", folder], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return list(yaml.safe_load_all(done.stdout))


def build_with(kubectl: Path, folder: Path, *components: str) -> list[Manifest]:
    """The base with components; the overlay that names them is made in the folder."""
    deploy = ROOT / "deploy/k8s"
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(deploy / "base", folder)],
        "components": [
            os.path.relpath(deploy / "components" / name, folder) for name in components
        ],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    return build(kubectl, folder)


def of_kind(manifests: list[Manifest], *kinds: str) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] in kinds}


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for name, workload in of_kind(manifests, *WORKLOADS).items():
        yield name, workload["spec"]["template"]["spec"]


def test_there_is_an_overlay() -> None:
    assert "cpu" in [overlay.name for overlay in OVERLAYS]


def test_every_manifest_is_valid_to_the_letter(built: dict[str, list[Manifest]]) -> None:
    for manifests in built.values():
        for manifest in manifests:
            kubernetes_validate.validate(manifest, "1.36", strict=True)


def test_a_misspelt_field_would_be_found(built: dict[str, list[Manifest]]) -> None:
    manifest = of_kind(built["cpu"], "Deployment")["judge"]
    wrong = {**manifest, "spec": {**manifest["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.36", strict=True)


def test_every_service_has_a_workload_a_service_and_an_account(
    built: dict[str, list[Manifest]],
) -> None:
    for manifests in built.values():
        for kinds in (WORKLOADS, ("Service",), ("ServiceAccount",)):
            assert set(of_kind(manifests, *kinds)) == set(SERVICES)
        for name, workload in of_kind(manifests, *WORKLOADS).items():
            service = of_kind(manifests, "Service")[name]
            labels = workload["spec"]["template"]["metadata"]["labels"]
            assert service["spec"]["selector"].items() <= labels.items()
            assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()
            assert workload["spec"]["template"]["spec"]["serviceAccountName"] == name
            (container,) = workload["spec"]["template"]["spec"]["containers"]
            open_ports = {port["name"] for port in container["ports"]}
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= open_ports


def test_pods_meet_the_restricted_standard(built: dict[str, list[Manifest]]) -> None:
    for manifests in built.values():
        (namespace,) = of_kind(manifests, "Namespace").values()
        labels = namespace["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
        for _, pod in pods(manifests):
            security = pod["securityContext"]
            assert security["runAsNonRoot"] is True
            assert security["runAsUser"] == USER
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}
            assert pod["automountServiceAccountToken"] is False
            kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
            assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
            for container in pod["containers"]:
                security = container["securityContext"]
                assert security["allowPrivilegeEscalation"] is False
                assert security["readOnlyRootFilesystem"] is True
                assert security["capabilities"] == {"drop": ["ALL"]}


def test_what_a_process_writes_to_is_mounted(built: dict[str, list[Manifest]]) -> None:
    for manifests in built.values():
        for name, pod in pods(manifests):
            (container,) = pod["containers"]
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            claims = of_kind(manifests, *WORKLOADS)[name]["spec"].get("volumeClaimTemplates", [])
            known = {*volumes, *(claim["metadata"]["name"] for claim in claims)}
            assert set(mounts.values()) == known
            for folder in ("/tmp", "/home/tuneproof"):
                assert "emptyDir" in volumes[mounts[folder]]
            if name == "generator":
                assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"


def test_probes_ask_the_health_port(built: dict[str, list[Manifest]]) -> None:
    for manifests in built.values():
        for name, pod in pods(manifests):
            (container,) = pod["containers"]
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            probes = {kind: container[f"{kind}Probe"]["grpc"] for kind in ("readiness", "liveness")}
            assert probes["readiness"] == {"port": ports["health"], "service": "ready"}
            assert probes["liveness"] == {"port": ports["health"], "service": "live"}
            startup = container["startupProbe"]["grpc"]
            # A judge whose endpoint is down must not be restarted for it.
            assert startup["service"] == ("live" if name == "judge" else "ready")


def test_every_variable_is_a_setting_and_they_fit_together(
    built: dict[str, list[Manifest]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in os.environ:
        if variable.startswith(tuple(f"TUNEPROOF_{name.upper()}_" for name in SERVICES)):
            monkeypatch.delenv(variable)
    for manifests in built.values():
        maps = of_kind(manifests, "ConfigMap")
        for name, pod in pods(manifests):
            (container,) = pod["containers"]
            variables = maps[container["envFrom"][0]["configMapRef"]["name"]]["data"]
            others = [each["name"] for each in container.get("env", [])]
            settings_type = settings_of(name)
            fields = {
                f"TUNEPROOF_{name.upper()}_{field.upper()}" for field in settings_type.model_fields
            }
            assert {*variables, *others} <= fields
            with monkeypatch.context() as patched:
                for variable, value in variables.items():
                    patched.setenv(variable, value)
                settings = settings_type()
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            assert settings.bind == f"0.0.0.0:{ports['grpc']}"
            assert settings.health_bind == f"0.0.0.0:{ports['health']}"
            assert settings.metrics_bind == f"0.0.0.0:{ports['metrics']}"
            folders = [Path(mount["mountPath"]) for mount in container["volumeMounts"]]
            assert settings.tokens_file.parent in folders
            for field in ("store_dir", "artifacts", "cache_dir", "model"):
                if field in settings_type.model_fields:
                    folder = Path(getattr(settings, field))
                    assert any(folder.is_relative_to(mounted) for mounted in folders), field


def settings_of(service: str) -> Any:
    module = importlib.import_module(f"tuneproof_{service}.settings")
    return getattr(module, f"{service.capitalize()}Settings")


def test_the_judge_asks_the_generators_openai_port(built: dict[str, list[Manifest]]) -> None:
    for manifests in built.values():
        data = {
            key: value
            for each in of_kind(manifests, "ConfigMap").values()
            for key, value in each["data"].items()
        }
        ports = of_kind(manifests, "Service")["generator"]["spec"]["ports"]
        (openai,) = [port["port"] for port in ports if port["name"] == "openai"]
        assert data["TUNEPROOF_JUDGE_ENDPOINT_URL"] == f"http://generator:{openai}/v1"
        assert data["TUNEPROOF_JUDGE_ENDPOINT_MODEL"] == data["TUNEPROOF_GENERATOR_MODEL_NAME"]


def test_tokens_are_referred_to_and_never_contained(built: dict[str, list[Manifest]]) -> None:
    for manifests in built.values():
        assert of_kind(manifests, "Secret") == {}
        for _, pod in pods(manifests):
            (tokens,) = [each for each in pod["volumes"] if each["name"] == "tokens"]
            assert tokens["secret"]["secretName"] == "tuneproof-tokens"


def test_everything_is_in_one_namespace_and_every_claim_exists(
    built: dict[str, list[Manifest]],
) -> None:
    for manifests in built.values():
        for manifest in manifests:
            if manifest["kind"] != "Namespace":
                assert manifest["metadata"]["namespace"] == "tuneproof"
        claims = set(of_kind(manifests, "PersistentVolumeClaim"))
        for _, pod in pods(manifests):
            for volume in pod["volumes"]:
                if "persistentVolumeClaim" in volume:
                    assert volume["persistentVolumeClaim"]["claimName"] in claims


def test_images_have_a_tag_that_says_which(built: dict[str, list[Manifest]]) -> None:
    for manifests in built.values():
        for name, pod in pods(manifests):
            image, _, tag = pod["containers"][0]["image"].partition(":")
            assert image.endswith(f"tuneproof/{name}")
            assert tag not in {"", "latest"}


def test_containers_have_requests_and_a_memory_limit(built: dict[str, list[Manifest]]) -> None:
    for manifests in built.values():
        for _, pod in pods(manifests):
            resources = pod["containers"][0]["resources"]
            assert set(resources["requests"]) >= {"cpu", "memory"}
            assert "memory" in resources["limits"]
