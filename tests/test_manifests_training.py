"""The component `training-jobs`: what workers get, and what the trainer may do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuneproof_trainer.execution.profiles import load_pods

from .rendering import (
    Built,
    Manifest,
    container_of,
    of_kind,
    selects,
    template,
    together,
    variables_of,
)

WORKER = {"app.kubernetes.io/name": "trainer-worker"}

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def jobs(kubectl: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return {
        name: together(kubectl, tmp_path_factory.mktemp("overlay"), names)
        for name, names in {
            "volume": ("training-jobs", "network-policies"),
            "s3": ("training-jobs", "s3", "kueue"),
        }.items()
    }


@pytest.fixture(params=["volume", "s3"])
def manifests(jobs: Built, request: pytest.FixtureRequest) -> list[Manifest]:
    return jobs[request.param]


def trainer_of(manifests: list[Manifest]) -> Manifest:
    return of_kind(manifests, "StatefulSet")["trainer"]


def test_workers_have_the_volumes_of_the_trainer(manifests: list[Manifest], tmp_path: Path) -> None:
    trainer = trainer_of(manifests)
    variables = variables_of(manifests, container_of(trainer))
    assert variables["TUNEPROOF_TRAINER_EXECUTOR"] == "kubernetes"
    volumes = {each["name"]: each for each in template(trainer)["spec"]["volumes"]}
    mounts = {each["mountPath"]: each for each in container_of(trainer)["volumeMounts"]}
    file = Path(variables["TUNEPROOF_TRAINER_PROFILES_FILE"])
    config = volumes[mounts[str(file.parent)]["name"]]["configMap"]["name"]
    (tmp_path / file.name).write_text(of_kind(manifests, "ConfigMap")[config]["data"][file.name])
    parts = load_pods("h100", tmp_path / file.name).parts
    for mount in parts.volume_mounts:
        (volume,) = [each for each in parts.volumes if each["name"] == mount["name"]]
        assert mount == mounts[mount["mountPath"]]
        assert volume == volumes[volume["name"]]
    paths = {mount["mountPath"] for mount in parts.volume_mounts}
    assert paths == {"/models", "/artifacts"} & set(mounts)


def test_workers_reach_s3_where_artifacts_are_there(jobs: Built) -> None:
    (file,) = [
        config["data"]["profiles.yaml"]
        for config in of_kind(jobs["s3"], "ConfigMap").values()
        if "profiles.yaml" in config["data"]
    ]
    assert "tuneproof.dev/egress: https" in file
    assert "name: tuneproof-s3" in file


def test_only_the_trainer_has_rights_and_no_more_than_it_needs(manifests: list[Manifest]) -> None:
    (role,) = of_kind(manifests, "Role").values()
    assert {
        (verb, resource)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
    } == {
        *((verb, "jobs") for verb in ("create", "get", "delete")),
        *((verb, "pods") for verb in ("get", "list")),
        ("list", "events"),
    }
    (binding,) = of_kind(manifests, "RoleBinding").values()
    assert [subject["name"] for subject in binding["subjects"]] == ["trainer"]
    account = of_kind(manifests, "ServiceAccount")["trainer-worker"]
    assert account["automountServiceAccountToken"] is False


def test_workers_of_one_training_find_each_other_and_reach_nobody_else(jobs: Built) -> None:
    service = of_kind(jobs["volume"], "Service")["trainer-workers"]["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    assert service["selector"] == WORKER
    chosen = {
        name
        for name, policy in of_kind(jobs["volume"], "NetworkPolicy").items()
        if selects(policy["spec"]["podSelector"], WORKER)
    }
    assert chosen == {"default-deny", "dns", "trainer-workers"}


def test_a_queue_of_kueue_is_named_where_it_is_asked(jobs: Built) -> None:
    queue = of_kind(jobs["s3"], "LocalQueue")["training"]
    variables = variables_of(jobs["s3"], container_of(trainer_of(jobs["s3"])))
    assert variables["TUNEPROOF_TRAINER_QUEUE"] == queue["metadata"]["name"]
    assert queue["spec"]["clusterQueue"] in of_kind(jobs["s3"], "ClusterQueue")
