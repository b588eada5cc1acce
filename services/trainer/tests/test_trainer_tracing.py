"""A run is a part of the trace of the call that created it, however late it begins."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tuneproof.adapters import FolderStorage
from tuneproof.servicekit import tracing
from tuneproof.servicekit.trace_testing import Collector, attributes_of, collecting
from tuneproof_trainer.execution.protocol import Attempt
from tuneproof_trainer.record import Job, RunState, RunStatus, WorkerEnding, WorkerResult
from tuneproof_trainer.runs.leases import Leases
from tuneproof_trainer.runs.queue import RunQueue
from tuneproof_trainer.runs.records import Records
from tuneproof_trainer.runs.store import RunStore
from tuneproof_trainer.spec import RunSpec

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as kept:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", kept.endpoint)
        yield kept


def job(run_id: str) -> Job:
    return Job(run_id=run_id, base_folder="/none", artifacts="/none", device="cpu", threads=1)


def create(store: RunStore, run_id: str, **more: object) -> RunStatus:
    status = RunStatus(id=run_id, state=RunState.QUEUED, create_time=datetime.now(UTC)).model_copy(
        update=more
    )
    assert store.create(run_id, RunSpec(adapter_name="short"), status)
    return status


class Executor:
    """Lets each attempt fail for its data, and keeps what a worker's environment would say."""

    def __init__(self) -> None:
        self.told: dict[str, str] = {}

    name = "local"
    outlives_service = False

    async def execute(self, attempt: Attempt) -> WorkerResult:
        self.told[attempt.run_id] = tracing.variables()["TRACEPARENT"]
        return WorkerResult(ending=WorkerEnding.BAD_INPUT, reason="line 3 is not JSON")


async def test_a_run_belongs_to_the_call_that_created_it(
    tmp_path: Path, collector: Collector
) -> None:
    with tracing.tracing("sample"):
        executor, store = Executor(), RunStore(FolderStorage(tmp_path))
        queue = RunQueue(Records(store), executor, job, Leases(30), workers=1)  # type: ignore[arg-type]
        for run_id in ("first", "second"):
            with tracing.span(f"create {run_id}"):
                queue.expect(run_id)
                create(store, run_id)
        await queue.open()
        async with asyncio.timeout(20):
            while not all(store.newest(run_id).state.ended for run_id in ("first", "second")):
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        await queue.close()
    runs = {attributes_of(span)["tuneproof.run"]: span for span in collector.named("run")}
    assert runs.keys() == {"first", "second"}
    for run_id, run in runs.items():
        assert run.parent_span_id == collector.one(f"create {run_id}").span_id
        assert attributes_of(run)["tuneproof.run.state"] == "failed"
        assert run.status.code == Status.STATUS_CODE_ERROR
        assert run.status.message == "line 3 is not JSON"
        assert executor.told[run_id].split("-")[1:3] == [run.trace_id.hex(), run.span_id.hex()]


@pytest.mark.process
def test_a_workers_phases_go_on_with_the_trace(tmp_path: Path, collector: Collector) -> None:
    store = RunStore(FolderStorage(tmp_path))
    create(store, "broken", state=RunState.RUNNING, attempt=1)
    store.write(job("broken"), "broken", 1)
    with tracing.tracing("sample"), tracing.span("run"):
        command = [sys.executable, "-m", "tuneproof_trainer.worker", str(tmp_path), "broken", "1"]
        environment = {**os.environ, **tracing.variables()}
        ended = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert ended.returncode != 0
    worker = collector.one("worker")
    assert worker.parent_span_id == collector.one("run").span_id
    assert worker.trace_id == collector.one("run").trace_id
    assert worker.status.code == Status.STATUS_CODE_ERROR
    assert collector.one("reading").parent_span_id == worker.span_id
    assert collector.services == {"sample", "tuneproof-trainer-worker"}
