"""The endings of real workers that need no torch."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tuneproof.adapters import FolderStorage
from tuneproof_trainer.execution.local import LocalExecutor
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
from tuneproof_trainer.spec import RunSpec

pytestmark = [pytest.mark.process, pytest.mark.timeout(60)]


def attempt_of(store: RunStore, spec: RunSpec, work: Job) -> Attempt:
    status = RunStatus(id="a", state=RunState.RUNNING, attempt=1, create_time=datetime.now(UTC))
    store.create("a", spec, status)
    return Attempt(status, work)


async def test_a_worker_whose_data_is_gone_says_so(tmp_path: Path, base_folder: Path) -> None:
    store = RunStore(FolderStorage(tmp_path))
    spec = RunSpec(data_path="data/gone.jsonl", data_digest="sha256:" + "0" * 64)
    work = Job(
        run_id="a", base_folder=str(base_folder), artifacts=str(tmp_path), device="cpu", threads=1
    )
    result = await LocalExecutor(store).execute(attempt_of(store, spec, work))
    assert result.ending is WorkerEnding.BAD_INPUT
    assert result.reason == "no data at data/gone.jsonl in the artifact store"
    assert store.read(WorkerResult, "a", 1) == result
    assert "no data at" in (tmp_path / "runs/a/logs/0001.txt").read_text()


async def test_a_worker_that_cannot_even_start_is_told_by_its_log(
    tmp_path: Path, base_folder: Path
) -> None:
    store = RunStore(FolderStorage(tmp_path))
    work = Job(
        run_id="a", base_folder=str(base_folder), artifacts="none://x", device="cpu", threads=1
    )
    result = await LocalExecutor(store).execute(attempt_of(store, RunSpec(), work))
    assert "ended with exit code 1; its log ends with: " in result.reason
    assert "cannot open none://x" in result.reason
    assert (tmp_path / "runs/a/logs/0001.txt").is_file()


async def test_a_worker_whose_run_is_not_its_own_any_more_commits_nothing(
    tmp_path: Path, base_folder: Path
) -> None:
    store = RunStore(FolderStorage(tmp_path))
    work = Job(
        run_id="a", base_folder=str(base_folder), artifacts=str(tmp_path), device="cpu", threads=1
    )
    attempt = attempt_of(store, RunSpec(), work)
    store.advance(attempt.status.model_copy(update={"attempt": 2}), 1)
    result = await LocalExecutor(store).execute(attempt)
    assert result.ending is WorkerEnding.STOPPED
    assert "another worker has taken it over" in result.reason
    assert store.read(WorkerResult, "a", 1) is None
    assert store.read(Heartbeat, "a", 1) is None
