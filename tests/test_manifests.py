"""Rules that hold in all Kubernetes manifests: every overlay, and all components."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tuneproof.study.design.spec import StudySpec

from .rendering import (
    OVERLAYS,
    ROOT,
    WORKLOADS,
    Built,
    Manifest,
    of_kind,
    pods,
    role,
    selects,
    template,
    variables_of,
)

SERVICES = ("retriever", "generator", "trainer", "judge")
USER = 10001
GPU = "nvidia.com/gpu"

CLUSTERWIDE = {"Namespace", "ClusterQueue", "ResourceFlavor", "CustomResourceDefinition"}
CLUSTERWIDE |= {"ClusterRole", "ClusterRoleBinding"}

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=[*(overlay.name for overlay in OVERLAYS), "everything"])
def manifests(built: Built, request: pytest.FixtureRequest) -> list[Manifest]:
    return built[request.param]


def test_there_are_overlays_for_three_kinds_of_clusters() -> None:
    assert {overlay.name for overlay in OVERLAYS} == {"cpu", "h100", "a100"}


def test_every_service_has_workload_service_and_account(manifests: list[Manifest]) -> None:
    services, accounts = of_kind(manifests, "Service"), of_kind(manifests, "ServiceAccount")
    found = set()
    for name, workload in of_kind(manifests, *WORKLOADS).items():
        if role(workload) in SERVICES:
            found.add(role(workload))
            assert services[name]["spec"]["clusterIP"] == "None"
            assert template(workload)["spec"]["serviceAccountName"] == name
            assert name in accounts
    assert found == set(SERVICES)


def test_services_lead_to_open_ports_of_one_workload(manifests: list[Manifest]) -> None:
    for service in of_kind(manifests, "Service").values():
        if service["metadata"]["name"] == "trainer-workers":
            continue  # It only gives the pods of Jobs their names.
        selector = {"matchLabels": service["spec"]["selector"]}
        (ports,) = [
            {port["name"] for port in container["ports"]}
            for workload, _, container in pods(manifests)
            if selects(selector, template(workload)["metadata"]["labels"])
        ]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_pods_meet_the_restricted_standard(manifests: list[Manifest]) -> None:
    (namespace,) = of_kind(manifests, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    with_rights = {
        subject["name"]
        for binding in of_kind(manifests, "RoleBinding").values()
        for subject in binding["subjects"]
    }
    for _, pod, container in pods(manifests):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == USER
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        # Only who has rights in the cluster has a token for it.
        assert pod["automountServiceAccountToken"] is (pod.get("serviceAccountName") in with_rights)
        assert pod["enableServiceLinks"] is False
        kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}


def test_what_a_process_writes_to_is_mounted(manifests: list[Manifest]) -> None:
    for workload, pod, container in pods(manifests):
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        claims = workload["spec"].get("volumeClaimTemplates", [])
        assert set(mounts.values()) == {*volumes, *(each["metadata"]["name"] for each in claims)}
        ours = container["image"].startswith("tuneproof/")
        for folder in ("/tmp", "/home/tuneproof") if ours else ("/tmp",):
            assert "emptyDir" in volumes[mounts[folder]]
        if role(workload) == "generator":
            assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
        if role(workload) == "judge":
            assert volumes[mounts["/etc/tuneproof-rubrics"]]["configMap"]["name"] == "rubrics"


def test_probes_ask_the_health_port(manifests: list[Manifest]) -> None:
    for workload, _, container in pods(manifests, *WORKLOADS):
        assert {f"{kind}Probe" for kind in ("startup", "readiness", "liveness")} <= set(container)
        if role(workload) not in SERVICES:
            continue
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        probes = {kind: container[f"{kind}Probe"]["grpc"] for kind in ("readiness", "liveness")}
        assert probes["readiness"] == {"port": ports["health"], "service": "ready"}
        assert probes["liveness"] == {"port": ports["health"], "service": "live"}
        startup = container["startupProbe"]["grpc"]
        # A judge whose endpoint is down must not be restarted for it.
        assert startup["service"] == ("live" if role(workload) == "judge" else "ready")


def settings_of(service: str) -> Any:
    module = importlib.import_module(f"tuneproof_{service}.settings")
    return getattr(module, f"{service.capitalize()}Settings")


def settings_with(service: str, variables: dict[str, str], patch: pytest.MonkeyPatch) -> Any:
    """A service's settings as its variables make them."""
    with patch.context() as patched:
        for variable in os.environ:
            if variable.startswith(f"TUNEPROOF_{service.upper()}_"):
                patched.delenv(variable)
        for variable, value in variables.items():
            patched.setenv(variable, value)
        return settings_of(service)()


def test_every_variable_is_a_setting_and_they_fit_together(
    manifests: list[Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    for workload, pod, container in pods(manifests):
        service = role(workload)
        if service not in SERVICES:
            continue
        variables = variables_of(manifests, container)
        names = {*variables, *(each["name"] for each in container.get("env", []))}
        fields = settings_of(service).model_fields
        known = {f"TUNEPROOF_{service.upper()}_{field.upper()}" for field in fields}
        assert names <= known | {"HF_HUB_CACHE"}
        settings = settings_with(service, variables, monkeypatch)
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert settings.bind == f"0.0.0.0:{ports['grpc']}"
        assert settings.health_bind == f"0.0.0.0:{ports['health']}"
        assert settings.metrics_bind == f"0.0.0.0:{ports['metrics']}"
        folders = [Path(mount["mountPath"]) for mount in container["volumeMounts"]]
        paths = [settings.tokens_file, variables.get("HF_HUB_CACHE")]
        paths += [getattr(settings, field, None) for field in ("cache_dir", "artifacts", "model")]
        paths += [settings.store_dir] if getattr(settings, "store", "") == "lancedb" else []
        for path in map(Path, filter(None, paths)):
            assert not path.is_absolute() or any(path.is_relative_to(each) for each in folders)
        # From the end of its service's calls to SIGKILL: as long as it takes to drain and to stop.
        stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        drain = stop + settings.drain_seconds
        if getattr(settings, "executor", "") == "local":  # Jobs outlive it.
            drain += settings.stop_seconds
        assert pod["terminationGracePeriodSeconds"] >= drain + 15
        if service == "generator" and (gpus := _gpus(manifests, pod, container)):
            assert gpus == settings.tensor_parallel


def _gpus(manifests: list[Manifest], pod: Manifest, container: Manifest) -> int:
    """How many GPUs a pod gets, as a resource or by claims."""
    templates = of_kind(manifests, "ResourceClaimTemplate")
    names = [each["resourceClaimTemplateName"] for each in pod.get("resourceClaims", [])]
    requests = [
        request["exactly"]["count"]
        for name in names
        for request in templates[name]["spec"]["spec"]["devices"]["requests"]
    ]
    return int(container["resources"]["limits"].get(GPU, 0)) + sum(requests)


def test_a_pod_with_gpus_finds_its_node_and_never_waits_for_the_one_that_it_replaces(
    built: Built,
) -> None:
    for name, manifests in built.items():
        counts = {
            workload["metadata"]["name"]: _gpus(manifests, pod, container)
            for workload, pod, container in pods(manifests)
        }
        for workload, pod, _ in pods(manifests):
            if not counts[workload["metadata"]["name"]]:
                continue
            assert {"key": GPU, "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
            product = pod.get("nodeSelector", {}).get("nvidia.com/gpu.product", "")
            assert name == "everything" or name.upper() in product
            spec = workload["spec"]
            rolling = (spec.get("strategy") or spec["updateStrategy"])["rollingUpdate"]
            surge = {"maxSurge": 0} if workload["kind"] == "Deployment" else {}
            assert rolling == {**surge, "maxUnavailable": 1}
        if name != "everything":
            wanted = {"cpu": 0, "h100": 4, "a100": 2}[name]
            assert sum(counts.values()) == wanted


def test_connections_end_so_that_clients_find_new_pods_and_certificates(
    manifests: list[Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    for workload, _, container in pods(manifests, *WORKLOADS):
        if (service := role(workload)) in SERVICES:
            settings = settings_with(service, variables_of(manifests, container), monkeypatch)
            assert settings.max_connection_age_seconds == 300
            assert settings.max_connection_age_grace_seconds == 0  # Calls under way end.


def test_a_budget_lets_one_pod_of_each_workload_go(manifests: list[Manifest]) -> None:
    budgets = of_kind(manifests, "PodDisruptionBudget").values()
    for workload, _, _ in pods(manifests, *WORKLOADS):
        if role(workload) in {"picker", "adapter-operator"}:  # One, by design.
            continue
        labels = template(workload)["metadata"]["labels"]
        (budget,) = [each for each in budgets if selects(each["spec"]["selector"], labels)]
        assert budget["spec"]["maxUnavailable"] == 1


def test_replicas_of_a_service_spread_over_nodes(manifests: list[Manifest]) -> None:
    for workload, pod, _ in pods(manifests):
        if role(workload) in SERVICES:
            (spread,) = pod["topologySpreadConstraints"]
            assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
            assert spread["labelSelector"] == workload["spec"]["selector"]


def test_models_of_the_hub_are_pinned_and_run_no_code(manifests: list[Manifest]) -> None:
    assert "trust" not in str(manifests).lower()
    commit = re.compile(r"[0-9a-f]{40}")
    pulled = {
        tuple(container["args"])
        for workload, _, container in pods(manifests)
        if role(workload) == "pull"
    }
    used = set()
    for _, _, container in pods(manifests):
        variables = variables_of(manifests, container)
        for service in ("GENERATOR", "TRAINER"):
            model = variables.get(f"TUNEPROOF_{service}_MODEL", "")
            if model and not model.startswith("/"):
                used.add((model, variables[f"TUNEPROOF_{service}_REVISION"]))
        for entry in filter(None, variables.get("TUNEPROOF_TRAINER_MORE_MODELS", "").split(",")):
            used.add(tuple(entry.partition("=")[2].split("@")))
    assert all(commit.fullmatch(revision) for _, revision in used)
    assert used == pulled


def test_the_judge_asks_the_openai_port_of_a_pool(built: Built) -> None:
    for overlay in OVERLAYS:
        manifests, served = built[overlay.name], {}
        for workload, _, container in pods(manifests, *WORKLOADS):
            variables = variables_of(manifests, container)
            if role(workload) == "judge":
                url = variables["TUNEPROOF_JUDGE_ENDPOINT_URL"]
                model = variables["TUNEPROOF_JUDGE_ENDPOINT_MODEL"]
            if role(workload) == "generator":
                name = workload["metadata"]["name"]
                ports = of_kind(manifests, "Service")[name]["spec"]["ports"]
                (port,) = [each["port"] for each in ports if each["name"] == "openai"]
                served[f"http://{name}:{port}/v1"] = variables["TUNEPROOF_GENERATOR_MODEL_NAME"]
        assert served[url] == model


def pools_of(manifests: list[Manifest]) -> dict[str, dict[str, str]]:
    """Settings of each pool by the address that clients in the namespace call."""
    return {
        f"{workload['metadata']['name']}:50051": {
            name.removeprefix("TUNEPROOF_GENERATOR_"): value
            for name, value in variables_of(manifests, container).items()
        }
        for workload, _, container in pods(manifests, *WORKLOADS)
        if role(workload) == "generator"
    }


def test_the_trainers_bases_are_served_under_the_same_names(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    for overlay in OVERLAYS:
        manifests = built[overlay.name]
        (container,) = [
            each for workload, _, each in pods(manifests) if role(workload) == "trainer"
        ]
        bases = settings_with("trainer", variables_of(manifests, container), monkeypatch).bases
        served = {
            pool["MODEL_NAME"]: (pool["MODEL"], pool.get("REVISION", ""))
            for pool in pools_of(manifests).values()
        }
        assert bases.items() <= served.items()


@pytest.mark.parametrize("overlay", ["h100", "a100"])
def test_a_study_over_two_pools_finds_them(built: Built, overlay: str) -> None:
    study = StudySpec.model_validate(yaml.safe_load((ROOT / "studies/pools.yaml").read_text()))
    pools = pools_of(built[overlay])
    for base in study.models:
        pool = pools[base.generator]
        assert (pool["MODEL"], pool["REVISION"]) == (base.model, base.revision)
        assert base.trainer == "trainer:50051"
        assert int(pool["MAX_LORA_RANK"]) >= study.training.hyperparameters.rank
    assert len({base.generator for base in study.models}) == 2


def test_secrets_are_referred_to_and_never_contained(manifests: list[Manifest]) -> None:
    assert of_kind(manifests, "Secret") == {}
    for workload, pod, _ in pods(manifests):
        if role(workload) in SERVICES:
            (tokens,) = [each for each in pod["volumes"] if each["name"] == "tokens"]
            assert tokens["secret"]["secretName"] == "tuneproof-tokens"


def test_everything_is_in_one_namespace_and_every_claim_exists(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["kind"] not in CLUSTERWIDE:
            assert manifest["metadata"]["namespace"] == "tuneproof"
    claims = set(of_kind(manifests, "PersistentVolumeClaim"))
    for _, pod, _ in pods(manifests):
        for volume in pod["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims


def test_images_have_a_tag_that_says_which(manifests: list[Manifest]) -> None:
    for _, _, container in pods(manifests):
        assert container["image"].rpartition(":")[2] not in {"", "latest", container["image"]}


def test_containers_have_requests_and_a_memory_limit(built: Built) -> None:
    for manifests in built.values():
        for _, _, container in pods(manifests):
            resources = container["resources"]
            assert set(resources["requests"]) >= {"cpu", "memory"}
            assert "memory" in resources["limits"]
    cores = [container["resources"]["requests"]["cpu"] for _, _, container in pods(built["cpu"])]
    assert sum(int(each.removesuffix("m")) for each in cores) <= 1500
