"""The Kubernetes executor against an API of this test's own, at the wire."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tuneproof.adapters import FolderStorage
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_trainer.execution.cluster import Cluster
from tuneproof_trainer.execution.jobs import Placement, name_of
from tuneproof_trainer.execution.kubernetes import KubernetesExecutor
from tuneproof_trainer.execution.profiles import load_pods
from tuneproof_trainer.execution.protocol import Attempt
from tuneproof_trainer.record import (
    Heartbeat,
    Job,
    RunState,
    RunStatus,
    WorkerEnding,
    WorkerResult,
)
from tuneproof_trainer.runs.store import RunStore

from .kubernetes_api import Api, serve
from .test_trainer_queue import Bench, Script, until

KUBECONFIG = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
"""The client reads the variable of this name when it is imported."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(60)]
STATUS = RunStatus(
    id="a", state=RunState.RUNNING, attempt=1, create_time=datetime(2026, 1, 2, tzinfo=UTC)
)
JOB, POD = name_of(STATUS), "pod-1"
WORK = Job(run_id="a", base_folder="/b", artifacts="s3://a", device="cpu", threads=1)
STOPPED = WorkerResult(ending=WorkerEnding.STOPPED, reason="the worker was told to stop")
DONE = WorkerResult(ending=WorkerEnding.DONE, adapter_ref="short@sha256:" + "0" * 64)


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    with serve(tmp_path) as (one, kubeconfig):
        monkeypatch.setattr(KUBECONFIG, kubeconfig)
        yield one


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(FolderStorage(tmp_path / "artifacts"))


@pytest.fixture
def executor(api: Api, store: RunStore) -> KubernetesExecutor:
    placement = Placement("image:1", load_pods("cpu"), "x")
    return KubernetesExecutor(store, Cluster(), placement, poll_seconds=0.02)


def pod(
    *,
    ended: dict[str, Any] | None = None,
    waiting: dict[str, str] | None = None,
    conditions: tuple[dict[str, str], ...] = (),
    phase: str = "Pending",
) -> dict[str, Any]:
    state = {"terminated": ended} if ended else {"waiting": waiting} if waiting else {}
    status = {"name": "worker", "state": state, "ready": False, "restartCount": 0}
    status |= {"image": "i", "imageID": "i"}
    return {
        "metadata": {"name": POD},
        "status": {"phase": phase, "conditions": conditions, "containerStatuses": [status]},
    }


def condition(type_: str, message: str = "", reason: str = "", status: str = "True") -> Any:
    return {"type": type_, "status": status, "message": message, "reason": reason}


def failed(message: str = "Job has reached the specified backoff limit") -> dict[str, Any]:
    reason = "PodFailurePolicy" if "rule" in message else "BackoffLimitExceeded"
    return {"status": {"conditions": [condition("Failed", message, reason)]}}


def terminated(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"exitCode": code, "reason": reason, "message": message}


EVICTED = condition("DisruptionTarget", "Eviction API: evicting", "EvictionByEvictionAPI")
FULL = condition("DisruptionTarget", "The node was low on memory", "TerminationByKubelet")


@pytest.mark.parametrize(
    ("pods", "job", "expected"),
    [
        ([pod(ended=terminated(2, message="x\nno such file"))], failed(), ("bad_input", "no such")),
        ([pod(ended=terminated(75))], failed(), ("retry", "exit code 75")),
        ([pod(ended=terminated(137))], failed(), ("retry", "was ended by SIGKILL")),
        ([pod(ended=terminated(130))], failed(), ("retry", "backoff limit")),
        ([pod(ended=terminated(255, "Unknown"))], failed(), ("retry", r"code 255 \(Unknown\)")),
        (
            [pod(ended=terminated(137, "OOMKilled"))],
            failed(),
            ("bad_input", r"ran out \(OOMKilled\): raise limits\.memory of its profile, now 8Gi"),
        ),
        ([pod(ended=terminated(130), conditions=(EVICTED,))], failed(), ("stopped", "evicted: Ev")),
        ([pod(ended=terminated(137), conditions=(FULL,))], failed(), ("retry", "low on memory")),
        ([], failed("has condition DisruptionTarget matching rule"), ("stopped", "evicted: has")),
        ([], failed(), ("retry", "BackoffLimitExceeded: Job has")),
        ([], {"status": {"conditions": [condition("Complete")]}}, ("retry", "exit code 0")),
    ],
)
async def test_a_worker_that_left_no_result_is_told_by_its_pod(
    executor: KubernetesExecutor,
    api: Api,
    pods: list[dict[str, Any]],
    job: dict[str, Any],
    expected: tuple[str, str],
) -> None:
    api.pods, api.changes = pods, job
    ending, reason = expected
    result = await executor.execute(Attempt(STATUS, WORK))
    assert result.ending == ending
    assert re.search(reason, result.reason), result.reason


async def test_the_first_pod_that_failed_is_the_cause(
    executor: KubernetesExecutor, api: Api
) -> None:
    first = terminated(75) | {"finishedAt": "2026-01-02T00:00:01Z"}
    second = terminated(137) | {"finishedAt": "2026-01-02T00:00:02Z"}
    api.pods, api.changes = [pod(ended=second), pod(ended=first)], failed()
    assert "exit code 75" in (await executor.execute(Attempt(STATUS, WORK))).reason


async def test_the_workers_own_result_counts_first_and_an_eviction_explains_its_stop(
    executor: KubernetesExecutor, api: Api, store: RunStore
) -> None:
    store.write(DONE, "a", 1)
    assert await executor.execute(Attempt(STATUS, WORK)) == DONE
    store.write(STOPPED, "a", 1)
    assert api.jobs == {}, "a result is enough; no worker begins"


async def test_a_stop_is_explained_by_what_befell_the_pod(
    executor: KubernetesExecutor, api: Api, store: RunStore
) -> None:
    store.write(STOPPED, "a", 1)
    api.jobs[JOB] = {"metadata": {"name": JOB}, "spec": {"template": {}}, "status": {}}
    api.pods = [pod(conditions=(EVICTED,), phase="Running")]
    result = await executor.follow(Attempt(STATUS, None))
    assert (result.ending, result.reason) == (
        WorkerEnding.STOPPED,
        "evicted: Eviction API: evicting",
    )


UNSCHEDULED = condition(
    "PodScheduled",
    "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes help.",
    "Unschedulable",
    "False",
)
CREATING = {"reason": "ContainerCreating"}
NO_IMAGE = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}


def warning_about(name: str, reason: str, message: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "e", "creationTimestamp": "2026-01-02T00:00:00Z"},
        "involvedObject": {"name": name},
        "reason": reason,
        "message": message,
    }


FORBIDDEN = warning_about(JOB, "FailedCreate", 'pods "x" is forbidden: violates PodSecurity')
UNMOUNTED = warning_about(POD, "FailedMount", 'secret "s3" not found')


@pytest.mark.parametrize(
    ("there", "job", "reason"),
    [
        (
            ([pod(conditions=(UNSCHEDULED,))], []),
            {},
            "no node takes it: 0/2 nodes are available: 2",
        ),
        (([pod(waiting=NO_IMAGE)], []), {}, "ImagePullBackOff: Back-off pulling image"),
        (([pod(waiting=CREATING)], [UNMOUNTED]), {}, 'FailedMount: secret "s3" not found'),
        (([], [FORBIDDEN]), {}, 'FailedCreate: pods "x" is forbidden: violates PodSecurity'),
        (([pod(phase="Running")], [UNMOUNTED]), {}, ""),
        (([], []), {"spec": {"suspend": True, "template": {}}}, "its Job is suspended"),
    ],
)
async def test_what_a_worker_waits_for_is_told(
    executor: KubernetesExecutor,
    api: Api,
    there: tuple[list[dict[str, Any]], list[dict[str, Any]]],
    job: dict[str, Any],
    reason: str,
) -> None:
    (api.pods, api.events), api.changes = there, job
    attempt = Attempt(STATUS, WORK)
    task = asyncio.create_task(executor.execute(attempt))
    await until(lambda: sum("/pods" in each for each in api.asked) > 1)
    told = executor.waits_for(attempt)
    assert told is not None
    assert told.startswith(reason) if reason else told == ""
    assert "preemption" not in told
    await stop(task)
    assert JOB in api.jobs, "a service that stops leaves the Job"


async def test_a_job_that_the_cluster_refuses_is_told_and_made_once_it_takes_it(
    executor: KubernetesExecutor, api: Api, store: RunStore
) -> None:
    attempt = Attempt(STATUS, WORK)
    api.refusal = (403, "jobs.batch is forbidden: exceeded quota")
    task = asyncio.create_task(executor.execute(attempt))
    await until(lambda: executor.waits_for(attempt))
    assert executor.waits_for(attempt) == (
        "the cluster refuses: jobs.batch is forbidden: exceeded quota"
    )
    api.refusal = (503, "etcd is away")
    await until(lambda: "etcd" in (executor.waits_for(attempt) or ""))
    api.refusal = None
    await until(lambda: JOB in api.jobs)
    store.write(DONE, "a", 1)
    assert await task == DONE
    assert executor.waits_for(attempt) == ""


async def test_a_run_that_is_cancelled_has_its_job_deleted(
    executor: KubernetesExecutor, api: Api
) -> None:
    attempt = Attempt(STATUS, WORK)
    task = asyncio.create_task(executor.execute(attempt))
    await until(lambda: JOB in api.jobs)
    attempt.saves = False
    await stop(task)
    assert api.jobs == {}


async def test_a_trainer_makes_the_job_that_another_one_could_not_make_but_no_second_one(
    executor: KubernetesExecutor, api: Api, store: RunStore
) -> None:
    store.write(WORK, "a", 1)
    task = asyncio.create_task(executor.follow(Attempt(STATUS, None)))
    await until(lambda: JOB in api.jobs)
    await stop(task)
    api.jobs.clear()
    beat = Heartbeat(process="p", sequence=1, phase="training", time=STATUS.create_time)
    store.write(beat, "a", 1)
    result = await executor.follow(Attempt(STATUS, None))
    assert (result.ending, result.reason) == (WorkerEnding.RETRY, "its Job was deleted")
    assert api.jobs == {}


async def test_a_trainer_waits_for_the_one_that_took_the_run_to_make_its_job(
    executor: KubernetesExecutor, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Attempt(STATUS, None)
    task = asyncio.create_task(executor.follow(attempt))
    await until(lambda: "has not made its Job" in (executor.waits_for(attempt) or ""))
    monkeypatch.setattr("tuneproof_trainer.execution.kubernetes._PATIENCE_SECONDS", 0)
    assert (await task).reason == "no Job was made for it"


async def test_a_job_that_its_queue_suspends_is_deleted_for_the_next_attempt_has_its_own(
    executor: KubernetesExecutor, api: Api, store: RunStore
) -> None:
    store.write(STOPPED, "a", 1)
    spec = {"suspend": True, "template": {}}
    api.jobs[JOB] = {"metadata": {"name": JOB}, "spec": spec, "status": {}}
    result = await executor.follow(Attempt(STATUS, None))
    assert (result.ending, result.reason) == (WorkerEnding.STOPPED, "its Job was suspended")
    assert api.jobs == {}


async def test_the_cluster_is_asked_before_the_first_run(
    executor: KubernetesExecutor, api: Api
) -> None:
    await executor.check(WORK)
    assert "dryRun=All" in api.asked[0]
    assert "fieldValidation=Strict" in api.asked[0]
    api.refusal = (500, "etcd is away")
    await executor.check(WORK)
    api.refusal = (403, "jobs.batch is forbidden")
    with pytest.raises(InvalidInput, match=r"the cluster refuses: jobs\.batch is forbidden"):
        await executor.check(WORK)


def test_the_image_is_that_of_the_own_pod(api: Api) -> None:
    with pytest.raises(InvalidInput, match="executor kubernetes needs worker_image: no pod "):
        Cluster().own_image()


def test_without_a_cluster_it_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / "none")
    monkeypatch.setattr(KUBECONFIG, place)
    with pytest.raises(InvalidInput, match="needs a cluster: a pod whose service account"):
        Cluster()


async def test_a_run_says_what_its_worker_waits_for_until_it_begins(tmp_path: Path) -> None:
    class Waiting(Script):
        def waits_for(self, attempt: Attempt) -> str | None:
            return "no node takes it"

    script = Waiting(DONE)
    bench = Bench(tmp_path, script, lease=0.05)
    bench.add("a")
    async with bench.opened():
        await until(lambda: bench.records["a"].status.reason)
        assert bench.store.newest("a").reason == "the worker waits: no node takes it"
        await asyncio.sleep(0.2)  # Longer than the lease: who waits is not lost.
        beat = Heartbeat(process="", sequence=1, phase="x", time=datetime.now(UTC))
        bench.store.write(beat, "a", 1)
        await until(lambda: bench.records["a"].status.reason == "")
        assert script.stopped == []
        script.go.set()
        await bench.until("a", RunState.SUCCEEDED)


async def test_an_api_that_is_out_of_reach_does_not_end_the_run(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(tmp_path) as (_, kubeconfig):
        monkeypatch.setattr(KUBECONFIG, kubeconfig)
        placement = Placement("image:1", load_pods("cpu"), "x")
        executor = KubernetesExecutor(store, Cluster(), placement, poll_seconds=0.02)
    attempt = Attempt(STATUS, WORK)
    task = asyncio.create_task(executor.execute(attempt))
    await until(lambda: "cannot be reached" in (executor.waits_for(attempt) or ""))
    attempt.saves = False
    await stop(task)


async def stop(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
