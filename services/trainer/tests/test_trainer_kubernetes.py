"""The Kubernetes executor against an API of this test's own, at the wire."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

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

pytestmark = pytest.mark.timeout(60)
STATUS = RunStatus(
    id="a", state=RunState.RUNNING, attempt=1, create_time=datetime(2026, 1, 2, tzinfo=UTC)
)
JOB, POD = name_of(STATUS), "pod-1"
WORK = Job(run_id="a", base_folder="/b", artifacts="s3://a", device="cpu", threads=1)
STOPPED = WorkerResult(ending=WorkerEnding.STOPPED, reason="the worker was told to stop")
DONE = WorkerResult(ending=WorkerEnding.DONE, adapter_ref="short@sha256:" + "0" * 64)


class Api:
    """Jobs, pods and events of a namespace, as Kubernetes' API gives them."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.refusal: tuple[int, str] | None = None
        self.asked: list[str] = []
        self.changes: dict[str, Any] = {}
        """Put into the Job that is made next."""

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:  # noqa: PLR0911
        self.asked.append(f"{method} {path}")
        if self.refusal:
            code, message = self.refusal
            return code, {"message": message}
        kind, _, name = path.partition("?")[0].rpartition("/namespaces/x/")[2].partition("/")
        match method, kind:
            case "POST", _:
                if "dryRun" not in path:
                    self.jobs[body["metadata"]["name"]] = body | {"status": {}} | self.changes
                return 201, body
            case "GET", "jobs":
                return (200, self.jobs[name]) if name in self.jobs else (404, {"message": "gone"})
            case "DELETE", "jobs":
                self.jobs.pop(name, None)
                return 200, {}
            case "GET", "pods" if name:
                return 404, {"message": "gone"}
            case "GET", "pods":
                return 200, {"items": self.pods}
            case "GET", "events":
                (about,) = re.findall(r"involvedObject.name%3D([\w-]+)", path)
                chosen = [e for e in self.events if e["involvedObject"]["name"] == about]
                return 200, {"items": chosen}
        raise AssertionError(f"{method} {path}")


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    one = Api()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            given = self.rfile.read(int(self.headers.get("content-length") or 0))
            code, reply = one.answer(self.command, self.path, json.loads(given or "null"))
            sent = json.dumps(reply).encode()
            self.send_response(code)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 - as http.server names them

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "current-context": "c",
        "clusters": [
            {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        ],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "x"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    # The client reads the variable when it is imported.
    place = str(tmp_path / "kubeconfig")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", place)
    yield one
    server.shutdown()
    server.server_close()


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
    assert (await task).reason == "its Job was deleted"


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
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", place)
    with pytest.raises(InvalidInput, match="needs a cluster: a pod whose service account"):
        Cluster()


async def until(true: Any) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


async def stop(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
