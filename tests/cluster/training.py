"""A trainer of this machine whose workers are pods of the cluster.

It has the rights that the manifests give it, by its service account's token. A pod borrows Python,
the installed packages and the sources from this machine, through read-only volumes, so that no
image is built: what a Dockerfile makes is another test's subject.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from tuneproof.adapters import open_storage
from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.sdk.runs import RunInfo, RunSpec
from tuneproof.sdk.trainer import TrainerClient
from tuneproof_trainer.execution.jobs import Placement, job_for
from tuneproof_trainer.execution.profiles import load_pods
from tuneproof_trainer.execution.protocol import Attempt
from tuneproof_trainer.record import Job, RunState, RunStatus

from ..rendering import Manifest
from .cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "localhost/borrowing:1"
NAMESPACE = "tuneproof"


@dataclass(frozen=True)
class Ground:
    """What trainers of these tests share."""

    cluster: Cluster
    kubeconfig: Path
    profiles: Path

    def jobs(self) -> list[Manifest]:
        """All Jobs that are there."""
        return self.cluster.get("jobs", "--namespace", NAMESPACE)

    def pods_of(self, run: str) -> list[Manifest]:
        """The pods of a run that are there."""
        chosen = ("--selector", f"tuneproof.dev/run={run}")
        return self.cluster.get("pods", "--namespace", NAMESPACE, *chosen)


def borrowed() -> dict[str, Path]:
    """Folders that hold all that a worker runs, by the name of their volume."""
    found = {"usr": Path("/usr"), "environment": Path(sys.prefix).resolve(), "sources": ROOT}
    if not Path(sys.base_prefix).is_relative_to("/usr"):
        found["python"] = Path(sys.base_prefix).resolve()
    return found


def write_root(folder: Path) -> Path:
    """The few files of an image whose pods borrow the rest."""
    (folder / "etc").mkdir(parents=True)
    (folder / "etc/passwd").write_text("tuneproof:x:10001:10001::/home/tuneproof:/bin/false\n")
    for name in ("bin", "lib", "lib64", "sbin"):
        (folder / name).symlink_to(f"usr/{name}")
    return folder


def write_profiles(path: Path, volumes: list[Manifest]) -> Path:
    """Profiles as small as this machine needs them."""
    small = {"device": "cpu", "requests": {"cpu": "250m", "memory": "512Mi"}}
    variables = {
        "HOME": "/home/tuneproof",
        "PATH": f"{Path(sys.prefix).resolve()}/bin:/usr/bin:/bin",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    content = {
        "pod": {
            "env": [{"name": name, "value": value} for name, value in variables.items()],
            "envFrom": [{"secretRef": {"name": "tuneproof-s3"}}],
            "volumes": volumes,
            "volumeMounts": [
                {"name": name, "mountPath": str(folder), "readOnly": True}
                for name, folder in borrowed().items()
            ],
        },
        "profiles": {
            "small": small | {"limits": {"memory": "3Gi"}},
            "tiny": {"device": "cpu", "limits": {"memory": "48Mi"}},
        },
    }
    path.write_text(yaml.safe_dump(content))
    return path


def job_of(profiles: Path, profile: str, queue: str = "") -> Manifest:
    """The Job of an attempt, as the trainer makes it.

    Args:
        profiles: the trainer's file of them.
    """
    status = RunStatus(id="a", state=RunState.RUNNING, create_time=datetime.now(UTC))
    work = Job(run_id="a", base_folder="/b", artifacts="s3://a", device="cpu", threads=1)
    placement = Placement(IMAGE, load_pods(profile, profiles), NAMESPACE, queue=queue)
    return job_for(Attempt(status, work), placement)


@asynccontextmanager
async def trainer(
    ground: Ground, store: str, folder: Path, *options: str, profile: str = "small"
) -> AsyncIterator[TrainerClient]:
    """A trainer over a store, given as a URL."""
    folder.mkdir(parents=True, exist_ok=True)
    announce, log = folder / "announce.json", folder / "service.log"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tuneproof_trainer", "--executor", "kubernetes"),
        *("--model", str(ROOT / "demo/telecom-reader"), "--artifacts", store),
        *("--profile", profile, "--profiles-file", str(ground.profiles), "--worker-image", IMAGE),
        *("--announce-file", str(announce), "--sync-seconds", "0.5", "--stop-seconds", "20"),
        *("--checkpoint-steps", "5", "--checkpoint-minutes", "0", "--workers", "4", *options),
        stderr=log.open("ab"),
        env=os.environ | {"KUBECONFIG": str(ground.kubeconfig)},
    )
    try:
        await until(lambda: announce.exists() or process.returncode is not None)
        assert announce.exists(), log.read_text()
        async with TrainerClient(json.loads(announce.read_text())["grpc"]) as client:
            yield client
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


def spec(store: str, *, steps: int = 12, **asked: Any) -> RunSpec:
    """A small training; its data goes into the store."""
    turns = [
        {"role": "user", "content": "What does the S-NSSAI hold?"},
        {"role": "assistant", "content": "a slice type"},
    ]
    data = b"".join(json.dumps({"messages": turns, "id": n}).encode() + b"\n" for n in range(8))
    open_storage(store).write("data/train.jsonl", data)
    chosen = {"max_steps": steps, "effective_batch_size": 4, "rank": 4, "learning_rate": 1e-3}
    return RunSpec(
        adapter_name="short",
        data_path="data/train.jsonl",
        data_digest=f"sha256:{sha256(data).hexdigest()}",
        hyperparameters=Hyperparameters(**chosen | asked),
    )


async def until(true: Callable[[], object], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(true):
            await asyncio.sleep(0.2)


async def watch_until(
    client: TrainerClient, run_id: str, true: Callable[[RunInfo], object]
) -> RunInfo:
    """Watches a run until something is true of it, or it has ended."""
    async with asyncio.timeout(90):
        async for run in client.watch(run_id):
            if true(run) or run.ended:
                return run
    raise AssertionError("the watch ended before the run did")
