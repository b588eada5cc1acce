"""Trainings as Jobs of a real cluster: pods train, are evicted, refused, cancelled, adopted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tuneproof.adapters import Registry, open_storage

from ..rendering import Manifest, of_kind, together
from .cluster import Cluster
from .training import (
    IMAGE,
    NAMESPACE,
    Ground,
    borrowed,
    job_of,
    spec,
    trainer,
    until,
    watch_until,
    write_profiles,
)

pytestmark = pytest.mark.timeout(300)

RIGHTS = ("Namespace", "ServiceAccount", "Role", "RoleBinding")
GPUS = {"h100": "NVIDIA-H100-80GB-HBM3", "a100": "NVIDIA-A100-SXM4-80GB"}


@pytest.fixture(scope="module")
def manifests(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    return together(cluster.program, tmp_path_factory.mktemp("overlay"), ("training-jobs", "kueue"))


@pytest.fixture(scope="module")
def ground(
    cluster: Cluster,
    image: str,
    s3: dict[str, str],
    manifests: list[Manifest],
    tmp_path_factory: pytest.TempPathFactory,
) -> Ground:
    """The namespace, accounts and rights of the manifests, and what pods are made of."""
    folder = tmp_path_factory.mktemp("training")
    head = of_kind(manifests, "Service")["trainer-workers"]
    cluster.kubectl.apply(*(each for each in manifests if each["kind"] in RIGHTS), head)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "tuneproof-s3", "namespace": NAMESPACE},
        "stringData": s3,
    }
    cluster.kubectl.apply(secret)
    volumes = cluster.lend(NAMESPACE, borrowed())
    return Ground(
        cluster,
        cluster.kubectl.kubeconfig_of("trainer", NAMESPACE),
        write_profiles(folder / "profiles.yaml", volumes),
    )


@pytest.fixture
def store(ground: Ground, request: pytest.FixtureRequest) -> Iterator[str]:
    """A place in the bucket for each test, which leaves no Job behind."""
    yield f"s3://artifacts/{request.node.name}"
    ground.cluster.kubectl("delete", "jobs", "--all", "--namespace", NAMESPACE)


async def test_a_pod_trains_and_commits_to_s3_and_an_eviction_makes_the_same_adapter(
    ground: Ground, store: str, tmp_path: Path
) -> None:
    asked = spec(store, steps=30)
    async with trainer(ground, store, tmp_path, "--job-ttl-seconds", "5") as client:
        await client.create("whole", asked)
        await client.create("evicted", asked)
        await watch_until(client, "evicted", lambda run: len(run.losses) > 3)
        (pod,) = ground.pods_of("evicted")
        ground.cluster.evict(pod["metadata"]["name"], NAMESPACE)
        again = await watch_until(client, "evicted", lambda run: run.attempt > 1)
        assert "evicted" in again.reason
        evicted = await client.wait("evicted")
        whole = await client.wait("whole")
        assert (whole.state, evicted.state) == ("succeeded", "succeeded"), evicted.reason
        assert (whole.attempt, evicted.attempt) == (1, 2)
        assert int(evicted.provenance["resumed_from_step"]) > 3
        assert evicted.adapter_ref == whole.adapter_ref
        assert [str(ref) for ref in Registry(store).list()] == [whole.adapter_ref]
        # The worker keeps the log of its pod, which is gone with the Job.
        log = open_storage(store).read("runs/whole/logs/0001.txt").decode()
        assert f"committed {whole.adapter_ref}" in log
        await until(lambda: ground.jobs() == [])


async def test_what_the_worker_refuses_is_not_tried_again(
    ground: Ground, store: str, tmp_path: Path
) -> None:
    async with trainer(ground, store, tmp_path) as client:
        await client.create("refused", spec(store, max_length=8))
        run = await client.wait("refused")
        assert (run.state, run.attempt) == ("failed", 1)
        assert "max_length" in run.reason
        await until(lambda: ground.jobs()[0]["status"].get("conditions"))
        (job,) = ground.jobs()
        assert "exit code 2 matching FailJob rule" in job["status"]["conditions"][0]["message"]


async def test_a_run_that_is_cancelled_leaves_no_job(
    ground: Ground, store: str, tmp_path: Path
) -> None:
    async with trainer(ground, store, tmp_path, "--lease-seconds", "10") as client:
        await client.create("cancelled", spec(store, steps=5000))
        await watch_until(client, "cancelled", lambda run: run.losses)
        run = await client.cancel("cancelled")
        assert run.state == "cancelled"
        assert ground.jobs() == []
        await until(lambda: ground.pods_of("cancelled") == [], 15)
    assert Registry(store).list() == ()


async def test_another_trainer_goes_on_with_the_job_of_one_that_stopped(
    ground: Ground, store: str, tmp_path: Path
) -> None:
    async with trainer(ground, store, tmp_path / "one") as client:
        await client.create("adopted", spec(store, steps=80))
        await watch_until(client, "adopted", lambda run: run.losses)
        (before,) = ground.pods_of("adopted")
    (after,) = ground.pods_of("adopted")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["phase"] == "Running"
    async with trainer(ground, store, tmp_path / "two") as client:
        run = await client.wait("adopted")
    assert (run.state, run.attempt) == ("succeeded", 1), run.reason
    assert [str(ref) for ref in Registry(store).list()] == [run.adapter_ref]


async def test_two_pods_share_a_training(ground: Ground, store: str, tmp_path: Path) -> None:
    async with trainer(ground, store, tmp_path, "--nodes", "2") as client:
        await client.create("shared", spec(store, steps=6))
        run = await client.wait("shared")
    assert (run.state, run.attempt) == ("succeeded", 1), run.reason
    assert len(run.losses) == 6
    (job,) = ground.jobs()
    assert (job["spec"]["completionMode"], job["spec"]["completions"]) == ("Indexed", 2)
    await until(lambda: ground.jobs()[0]["status"].get("succeeded") == 2)
    assert [str(ref) for ref in Registry(store).list()] == [run.adapter_ref]


async def test_a_pod_without_enough_memory_is_told_which_setting_to_change(
    ground: Ground, store: str, tmp_path: Path
) -> None:
    async with trainer(ground, store, tmp_path, profile="tiny") as client:
        await client.create("small", spec(store))
        run = await client.wait("small")
    assert (run.state, run.attempt) == ("failed", 1)
    assert "OOMKilled" in run.reason
    assert "raise limits.memory of its profile, now 48Mi" in run.reason


async def test_gpus_are_asked_of_nodes_that_have_them_and_a_run_says_that_none_has(
    ground: Ground, store: str, tmp_path: Path
) -> None:
    (tmp_path / "none.yaml").write_text("{}")  # The volumes of the others are on one node.
    bare = replace(ground, profiles=tmp_path / "none.yaml")
    for name, product in GPUS.items():
        async with trainer(bare, f"{store}/{name}", tmp_path / name, profile=name) as client:
            await client.create(name, spec(f"{store}/{name}"))
            run = await watch_until(client, name, lambda run: "no node takes it" in run.reason)
            assert "didn't match Pod's node affinity/selector" in run.reason
            assert run.state == "running"
            ground.cluster.simulate_node(name, {"nvidia.com/gpu.product": product}, gpus=8)
            await until(lambda name=name: ground.pods_of(name)[0]["spec"].get("nodeName") == name)


async def test_a_namespace_that_forbids_the_pods_is_told(
    ground: Ground, store: str, tmp_path: Path
) -> None:
    limit = {"hard": {"pods": "0"}}
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": NAMESPACE},
        "spec": limit,
    }
    ground.cluster.kubectl.apply(quota)
    try:
        async with trainer(ground, store, tmp_path) as client:
            await client.create("forbidden", spec(store))
            run = await watch_until(client, "forbidden", lambda run: run.reason)
            assert "exceeded quota: none" in run.reason
            await client.cancel("forbidden")
    finally:
        ground.cluster.kubectl("delete", "resourcequota", "none", "--namespace", NAMESPACE)


async def test_a_trainer_without_the_right_to_make_jobs_says_so_and_ends(
    ground: Ground, store: str, tmp_path: Path
) -> None:
    weak = replace(
        ground, kubeconfig=ground.cluster.kubectl.kubeconfig_of("trainer-worker", NAMESPACE)
    )
    with pytest.raises(AssertionError, match=r"the cluster refuses: jobs\.batch is forbidden"):
        async with trainer(weak, store, tmp_path):
            pass


async def test_in_a_pod_it_finds_the_cluster_its_namespace_and_its_image(ground: Ground) -> None:
    code = """
from tuneproof_trainer.execution.cluster import Cluster
found = Cluster()
print(found.namespace, found.own_image(), found.job("none"), found.pods("none"))
"""
    pod = job_of(ground.profiles, "small")["spec"]["template"]["spec"]
    pod |= {"serviceAccountName": "trainer", "automountServiceAccountToken": True}
    pod["containers"][0] |= {"command": ["python", "-c", code], "args": []}
    name = {"name": "trainer-0", "namespace": NAMESPACE}
    kubectl = ground.cluster.kubectl
    kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": name, "spec": pod})
    ended = "--for=jsonpath={.status.phase}=Succeeded"
    kubectl("wait", ended, "pod/trainer-0", "--namespace", NAMESPACE, "--timeout", "60s")
    said = kubectl("logs", "trainer-0", "--namespace", NAMESPACE)
    assert said.split() == [NAMESPACE, IMAGE, "None", "[]"]
    kubectl("delete", "pod", "trainer-0", "--namespace", NAMESPACE)


def test_only_the_trainer_makes_jobs_and_it_may_do_no_more_than_it_needs(ground: Ground) -> None:
    cluster = ground.cluster
    needed = ("create jobs", "get jobs", "delete jobs", "get pods", "list pods", "list events")
    for asked in needed:
        assert cluster.may("trainer", asked, NAMESPACE), asked
        for account in ("trainer-worker", "generator", "judge", "retriever"):
            assert not cluster.may(account, asked, NAMESPACE), (account, asked)
    for asked in (
        *("list jobs", "patch jobs", "create pods", "delete pods", "get pods/log", "get secrets"),
        *("create pods/exec", "create pods/eviction", "create services", "list nodes"),
    ):
        assert not cluster.may("trainer", asked, NAMESPACE), asked
    assert not cluster.may("trainer", "create jobs", "default")


def test_queues_and_the_manifests_are_accepted(ground: Ground, manifests: list[Manifest]) -> None:
    """By the API server and the schemas of Kueue, without a warning of Pod Security."""
    ground.cluster.define("kueue.x-k8s.io")
    said = ground.cluster.kubectl.apply(*manifests, dry_run=True)
    assert "Warning" not in said
    assert "clusterqueue.kueue.x-k8s.io/training serverside-applied" in said
    queued = job_of(ground.profiles, "h100", queue="training")
    assert queued["spec"]["suspend"] is True
    assert "Warning" not in ground.cluster.kubectl.apply(queued, dry_run=True)


def test_a_workers_pod_fits_into_a_train_job_of_kubeflow(ground: Ground) -> None:
    """The trainer makes Jobs alone (docs/runs.md says why); this is how one would be written."""
    ground.cluster.define("trainer.kubeflow.org")
    pod = job_of(ground.profiles, "h100")["spec"]["template"]["spec"]
    (worker,) = pod["containers"]
    kept = ("env", "securityContext", "volumeMounts")
    placed = ("nodeSelector", "securityContext", "serviceAccountName", "tolerations", "volumes")
    patch = {
        **{key: pod[key] for key in (*placed, "terminationGracePeriodSeconds")},
        "containers": [{"name": "node", **{key: worker[key] for key in kept}}],
    }
    replicated = {"name": "node", "template": {"spec": {"template": {"spec": patch}}}}
    said = ground.cluster.kubectl.apply(
        {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainJob",
            "metadata": {"name": "a", "namespace": NAMESPACE},
            "spec": {
                "runtimeRef": {"name": "tuneproof-worker"},
                "trainer": {
                    **{key: worker[key] for key in ("image", "command", "args")},
                    "numNodes": 1,
                    "resourcesPerNode": worker["resources"],
                },
                "runtimePatches": [
                    {
                        "manager": "tuneproof.dev/trainer",
                        "trainingRuntimeSpec": {
                            "template": {"spec": {"replicatedJobs": [replicated]}}
                        },
                    }
                ],
            },
        },
        dry_run=True,
    )
    assert "trainjob.trainer.kubeflow.org/a serverside-applied" in said
