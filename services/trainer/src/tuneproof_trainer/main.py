"""Starts the trainer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import structlog

from tuneproof.adapters.base import identify_base, read_base_config
from tuneproof.adapters.storage import open_storage
from tuneproof.servicekit.errors import InvalidInput, WrongState
from tuneproof.servicekit.hub import ModelFolder, resolve_model
from tuneproof.servicekit.server import Service, run
from tuneproof.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from tuneproof_trainer.bases import Base
from tuneproof_trainer.execution.jobs import Placement
from tuneproof_trainer.execution.local import LocalExecutor
from tuneproof_trainer.execution.profiles import Pods, load_pods
from tuneproof_trainer.execution.protocol import Executor
from tuneproof_trainer.plan.device import find_device
from tuneproof_trainer.plan.planner import Planner
from tuneproof_trainer.record import Job
from tuneproof_trainer.runs.leases import Leases
from tuneproof_trainer.runs.queue import RunQueue
from tuneproof_trainer.runs.records import Records
from tuneproof_trainer.runs.runbook import Runbook
from tuneproof_trainer.runs.store import RunStore
from tuneproof_trainer.servicer import TrainerServicer
from tuneproof_trainer.settings import TrainerSettings, is_folder

DESCRIPTOR = trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"]
_EXAMPLES = "example: tuneproof-trainer --model ./base --artifacts ./artifacts --device cpu"

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def build(settings: TrainerSettings) -> AsyncIterator[Service]:
    """The trainer as the kit serves it."""
    pods = None
    if settings.executor == "kubernetes":
        pods = load_pods(settings.profile, settings.profiles_file)
        chosen = pods.profile
        memory = settings.device_memory_gib or chosen.device_memory_gib
        settings = settings.model_copy(
            update={"device": chosen.device, "device_memory_gib": memory}
        )
    store = open_storage(settings.artifacts)
    models: dict[str, ModelFolder] = {}
    for name, (model, revision) in settings.bases.items():
        found = await asyncio.to_thread(resolve_model, model, revision)
        identity = identify_base(found.path)
        named = name or found.name
        if named in models:
            raise InvalidInput(
                f"two bases are called {named!r}: see --model-name and --more-models"
            )
        models[named] = found
        _log.info("base", name=named, revision=found.revision, **identity.to_json())
    bases = {name: Base(name, read_base_config(model.path)) for name, model in models.items()}

    records = Records(RunStore(store))

    def job(run_id: str) -> Job:
        spec = records[run_id].spec
        base = spec.base_model
        if base not in models:
            raise WrongState(f"this trainer serves the base {base!r} no more")
        made = _job(settings, models[base], run_id)
        spec.refuse_indivisible(made.processes)
        return made

    sample = _job(settings, next(iter(models.values())), "check")
    executor = await _executor(settings, records.store, pods, sample)
    queue = RunQueue(
        records,
        executor,
        job,
        Leases(settings.lease_seconds),
        workers=settings.workers,
        max_attempts=settings.max_attempts,
        sync_seconds=settings.sync_seconds,
        replica=settings.replica,
    )
    device = await asyncio.to_thread(
        find_device, settings.device, settings.device_memory_gib, sample.processes
    )
    _log.info("device", name=device.name, memory_bytes=device.memory_bytes, count=device.count)
    runbook = Runbook(
        records,
        bases,
        store,
        queue,
        device=device,
        poll_seconds=settings.watch_seconds,
    )
    folders = {name: str(model.path) for name, model in models.items()}
    planner = Planner(bases, folders, _absolute(settings.artifacts), device, runbook.finished)
    servicer = TrainerServicer(runbook, planner)

    def register(server: grpc.aio.Server) -> None:
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(servicer, server)

    try:
        await queue.open()
        yield Service(register=register, descriptors=[DESCRIPTOR], check_ready=queue.check)
    finally:
        await queue.close()


async def _executor(
    settings: TrainerSettings, store: RunStore, pods: Pods | None, sample: Job
) -> Executor:
    if pods is None:
        return LocalExecutor(store, scratch=settings.scratch, grace_seconds=settings.stop_seconds)
    # Its client is an extra.
    from tuneproof_trainer.execution.cluster import Cluster  # noqa: PLC0415
    from tuneproof_trainer.execution.kubernetes import KubernetesExecutor  # noqa: PLC0415

    cluster = await asyncio.to_thread(Cluster, settings.namespace)
    placement = Placement(
        image=settings.worker_image or await asyncio.to_thread(cluster.own_image),
        pods=pods,
        namespace=cluster.namespace,
        queue=settings.queue,
        grace_seconds=settings.stop_seconds,
        kept_seconds=settings.job_ttl_seconds,
    )
    executor = KubernetesExecutor(store, cluster, placement, poll_seconds=settings.sync_seconds)
    await executor.check(sample)
    return executor


def _absolute(url: str) -> str:
    """An artifact store's URL for a process with another working directory."""
    if is_folder(url) and "://" not in url:
        return str(Path(url).expanduser().absolute())
    return url


def _job(settings: TrainerSettings, base: ModelFolder, run_id: str) -> Job:
    return Job(
        run_id=run_id,
        base_folder=str(base.path),
        base_revision=base.revision,
        artifacts=_absolute(settings.artifacts),
        device=settings.device,
        threads=settings.threads,
        devices=settings.devices,
        nodes=settings.nodes,
        checkpoint_steps=settings.checkpoint_steps,
        checkpoint_minutes=settings.checkpoint_minutes,
        keep_checkpoints=settings.keep_checkpoints,
        beat_seconds=settings.lease_seconds / 10,
        tensorboard=str(settings.tensorboard.absolute()) if settings.tensorboard else "",
        mlflow=settings.mlflow,
    )


def main() -> int:
    """The console script."""
    return run(TrainerSettings, build, name="trainer", examples=_EXAMPLES)


if __name__ == "__main__":
    raise SystemExit(main())
