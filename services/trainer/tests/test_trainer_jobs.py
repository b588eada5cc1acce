"""The manifest of a worker's Job, and the profiles that it is made of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from tuneproof.servicekit.errors import InvalidInput
from tuneproof_trainer.execution.jobs import Placement, job_for, name_of
from tuneproof_trainer.execution.profiles import PROFILES, load_pods
from tuneproof_trainer.execution.protocol import Attempt
from tuneproof_trainer.record import Job, RunState, RunStatus
from tuneproof_trainer.settings import TrainerSettings

pytestmark = pytest.mark.timeout(60)
BEGUN = datetime(2026, 1, 2, tzinfo=UTC)


def status_of(run_id: str = "a", attempt: int = 1) -> RunStatus:
    return RunStatus(id=run_id, state=RunState.RUNNING, attempt=attempt, create_time=BEGUN)


def made(profile: str = "cpu", status: RunStatus | None = None, **more: Any) -> dict[str, Any]:
    """The Job of a profile. More: of the worker's job, or `queue`."""
    status = status or status_of()
    queue = more.pop("queue", "")
    placement = Placement("tuneproof/trainer:1", load_pods(profile), "training", queue=queue)
    work = Job(
        run_id=status.id,
        base_folder="/models/base",
        artifacts="s3://a/b",
        device="cpu",
        threads=2,
        **more,
    )
    manifest = job_for(Attempt(status, work), placement)
    kubernetes_validate.validate(manifest, "1.36", strict=True)
    return manifest


def container_of(manifest: dict[str, Any]) -> dict[str, Any]:
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    return container


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_pod_is_restricted_and_has_neither_token_nor_second_try(profile: str) -> None:
    manifest = made(profile)
    pod, container = manifest["spec"]["template"]["spec"], container_of(manifest)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == "trainer-worker"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"/tmp", "/home/tuneproof", "/dev/shm"} == {
        mount["mountPath"] for mount in container["volumeMounts"]
    }
    assert "memory" in container["resources"]["limits"]
    assert manifest["spec"]["backoffLimit"] == 0
    assert pod["restartPolicy"] == "Never"
    disrupted, exits = manifest["spec"]["podFailurePolicy"]["rules"]
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert exits["onExitCodes"]["values"] == [2, 75, 130]
    assert {disrupted["action"], exits["action"]} == {"FailJob"}


@pytest.mark.parametrize("profile", ["h100", "a100"])
def test_a_pod_asks_for_so_many_gpus_of_the_profiles_nodes(profile: str) -> None:
    manifest = made(profile, devices=4)
    resources = container_of(manifest)["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == "4"
    assert resources["limits"]["nvidia.com/gpu"] == "4"
    pod = manifest["spec"]["template"]["spec"]
    assert profile.upper() in pod["nodeSelector"]["nvidia.com/gpu.product"]
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_a_worker_is_told_its_run_and_attempt() -> None:
    container = container_of(made(status=status_of("short-1", 3)))
    assert container["command"] == ["python", "-m", "tuneproof_trainer.worker"]
    assert container["args"] == ["s3://a/b", "short-1", "3"]
    assert {"name": "OMP_NUM_THREADS", "value": "2"} in container["env"]


def test_several_nodes_are_an_indexed_job_whose_first_pod_has_a_name() -> None:
    manifest = made("h100", devices=8, nodes=2)
    spec, name = manifest["spec"], manifest["metadata"]["name"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert spec["template"]["spec"]["subdomain"] == "trainer-workers"
    head = {"name": "MASTER_ADDR", "value": f"{name}-0.trainer-workers"}
    assert head in container_of(manifest)["env"]
    assert "completionMode" not in made()["spec"]


def test_a_queue_starts_the_job() -> None:
    queued = made(queue="training")
    assert queued["spec"]["suspend"] is True
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"
    assert made()["spec"]["suspend"] is False


@pytest.mark.parametrize("run_id", ["a", "a-", "a" * 63, "a" + "-" * 62])
def test_every_run_and_attempt_has_a_name_of_its_own_that_kubernetes_takes(run_id: str) -> None:
    again = status_of(run_id).model_copy(update={"create_time": BEGUN + timedelta(seconds=1)})
    other = status_of(run_id[:-1] + "b" if len(run_id) > 1 else "b")
    names = {name_of(each) for each in (status_of(run_id), status_of(run_id, 2), again, other)}
    assert len(names) == 4
    assert max(map(len, names)) <= 63 - len("-00")
    manifest = made(status=status_of(run_id))
    assert manifest["metadata"]["labels"]["tuneproof.dev/run"] == run_id.rstrip("-")


def test_a_file_adds_profiles_and_what_all_pods_get(tmp_path: Path) -> None:
    file = tmp_path / "profiles.yaml"
    file.write_text(
        """
pod:
  labels: {tuneproof.dev/egress: https}
  envFrom: [{secretRef: {name: s3}}]
  volumes: [{name: models, persistentVolumeClaim: {claimName: models}}]
  volumeMounts: [{name: models, mountPath: /models}]
profiles:
  l40s: {device: cuda, resource: nvidia.com/gpu, deviceMemoryGib: 48, limits: {memory: 64Gi}}
"""
    )
    pods = load_pods("l40s", file)
    assert (pods.profile.device_memory_gib, pods.profile.limits) == (48, {"memory": "64Gi"})
    work = Job(run_id="a", base_folder="/b", artifacts="/a", device="cuda", threads=1)
    manifest = job_for(Attempt(status_of(), work), Placement("image:1", pods, "training"))
    kubernetes_validate.validate(manifest, "1.36", strict=True)
    labels = manifest["spec"]["template"]["metadata"]["labels"]
    assert labels["tuneproof.dev/egress"] == "https"
    assert labels["app.kubernetes.io/name"] == "trainer-worker"
    container = container_of(manifest)
    assert container["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert {"name": "models", "mountPath": "/models"} in container["volumeMounts"]
    assert load_pods("h100", file).profile == PROFILES["h100"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("profiles: {x: {device: tpu}}", r"profiles\.x\.device: Input should be 'cpu' or 'cuda'"),
        ("profiles: {x: {device: cpu, gpus: 1}}", "gpus: is not a key of a file of profiles"),
        ("[1]", "expected a map with `pod`, `profiles` or both"),
        ("profiles: {", "is not YAML"),
        ("profiles: {y: {device: cpu}}", "no profile 'x': there are a100, cpu, h100, y"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "profiles.yaml"
    file.write_text(content)
    with pytest.raises(InvalidInput, match=message):
        load_pods("x", file)


def test_settings_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"model": "m", "artifacts": "a"}
    with pytest.raises(ValueError, match="nodes above 1 need the executor kubernetes"):
        TrainerSettings(**given, nodes=2)
    monkeypatch.setattr("tuneproof_trainer.settings.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'tuneproof-trainer\[kubernetes\]'"):
        TrainerSettings(**given, executor="kubernetes")
