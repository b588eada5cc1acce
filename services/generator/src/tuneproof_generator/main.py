"""Puts the generator together and runs it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import grpc
import uvloop

from tuneproof.adapters import ObjectStore, Registry, identify_base
from tuneproof.generator.v1 import generator_pb2, generator_pb2_grpc
from tuneproof.servicekit.errors import InvalidInput, Unavailable
from tuneproof.servicekit.http_server import listen, url_of
from tuneproof.servicekit.hub import resolve_model
from tuneproof.servicekit.imports import large_imports
from tuneproof.servicekit.locks import locked
from tuneproof.servicekit.server import Guard, Service, run
from tuneproof_generator.adapters.admission import inspector
from tuneproof_generator.adapters.loading import Loader
from tuneproof_generator.adapters.traffic import Traffic
from tuneproof_generator.clock import now
from tuneproof_generator.doors.adapter_servicer import AdapterServicer
from tuneproof_generator.doors.generator_servicer import GeneratorServicer, PoolDescription
from tuneproof_generator.engine.environment import environment
from tuneproof_generator.engine.protocol import Engine
from tuneproof_generator.engine.residency import ResidencyProbe
from tuneproof_generator.engine.scratch import scratch_folder
from tuneproof_generator.generation import Generator
from tuneproof_generator.pool.adapter_pool import AdapterPool
from tuneproof_generator.pool.aliases import Aliases
from tuneproof_generator.pool.declarations import Declarations
from tuneproof_generator.pool.replicas import Replicas
from tuneproof_generator.pool.residency_metrics import ResidencyMetrics, registered
from tuneproof_generator.pool.store import open_pool
from tuneproof_generator.settings import GeneratorSettings

if TYPE_CHECKING:
    from tuneproof_generator.engine.arguments import EngineOptions

_EXAMPLES = (
    "example: tuneproof-generator --model ./model --artifacts ./artifacts --bind 127.0.0.1:7002"
    " --openai-bind 127.0.0.1:8000"
)
_BATCH_ITEMS_PER_SEQUENCE = 2
_SETTLE_SECONDS = 30.0


def main() -> int:
    """Runs the generator until SIGTERM; the exit code."""
    return run(
        GeneratorSettings,
        build,
        name="generator",
        examples=_EXAMPLES,
        loop_factory=uvloop.new_event_loop,
    )


@asynccontextmanager
async def build(settings: GeneratorSettings) -> AsyncIterator[Service]:
    """Starts the engine and the OpenAI door; gives the gRPC service.

    Raises:
        InvalidInput: when the model cannot be served, or an address or folder cannot be used.
    """
    started = now()
    os.environ.update(environment(threads=settings.threads, verbose=settings.log_level == "debug"))
    model = await asyncio.to_thread(resolve_model, settings.model, settings.revision)
    folder = model.path
    replicas = await _join(settings)
    # In a thread, and late: importing vLLM takes seconds, and reads the environment.
    door_module, engine_module = await asyncio.to_thread(_import_vllm)
    guard = Guard.of(settings, "generator")
    async with contextlib.AsyncExitStack() as held:
        cache = settings.cache_dir.expanduser().absolute()
        held.enter_context(_alone_in(cache))
        held.enter_context(scratch_folder(cache))
        door = held.enter_context(contextlib.closing(listen(settings.openai_bind, "openai_bind")))
        engine = await held.enter_async_context(
            engine_module.start_engine(_options(settings, folder))
        )
        traffic = Traffic()
        pool = await held.enter_async_context(
            _pool(settings, engine, traffic, replicas, folder=folder, cache=cache)
        )
        # Clients that know this address call again as soon as it answers, whatever its readiness.
        await pool.settle(_SETTLE_SECONDS)
        await held.enter_async_context(
            door_module.openai_door(
                engine,
                pool,
                traffic,
                door,
                guard=guard,
                max_n=settings.max_n,
                keep_alive_seconds=settings.keep_alive_seconds,
                drain_seconds=settings.drain_seconds,
            )
        )
        description = PoolDescription(
            base_model=settings.served_name,
            replica=settings.replica,
            identity=identify_base(folder),
            engine=engine.facts,
            start_time=started,
            openai_url=f"{url_of(door, secure=guard.tls is not None)}/v1",
            live_replicas=replicas.live,
        )
        yield _service(engine, pool, traffic, description, settings.max_num_seqs)


@asynccontextmanager
async def _pool(
    settings: GeneratorSettings,
    engine: Engine,
    traffic: Traffic,
    replicas: Replicas,
    *,
    folder: Path,
    cache: Path,
) -> AsyncIterator[AdapterPool]:
    """The adapters, kept equal to what the pool's folder declares."""
    store = _store(settings)
    facts = engine.facts
    inspect = inspector(folder, identify_base(folder), facts.max_lora_rank)
    loader = Loader(
        engine,
        Registry(settings.artifacts),
        inspect,
        cache,
        fetch_seconds=settings.fetch_seconds,
    )
    await loader.prepare()
    pool = AdapterPool(
        loader,
        traffic,
        Declarations(store),
        Aliases(store),
        base_model=settings.served_name,
        capacity=facts.max_cpu_loras,
        residency_probe=ResidencyProbe(engine),
        replicas=replicas,
    )
    residency = ResidencyMetrics(
        pool.views.residents,
        asyncio.get_running_loop(),
        model_name=settings.served_name,
        slots=facts.max_loras,
    )
    async with replicas.present(pool.views.statuses):
        following = asyncio.create_task(pool.reconciler.follow(settings.reconcile_seconds))
        try:
            with registered(residency):
                yield pool
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await pool.close()


def _store(settings: GeneratorSettings) -> ObjectStore:
    return open_pool(settings.artifacts, settings.served_name, seconds=settings.store_seconds)


async def _join(settings: GeneratorSettings) -> Replicas:
    """This replica among the others of the pool.

    Raises:
        InvalidInput: when another process of this machine has its name, before an engine starts.
    """
    replicas = Replicas(_store(settings), settings.replica, lease_seconds=settings.lease_seconds)
    # While the store does not answer, the service starts but is not ready; the first write of the
    # replica's status checks the name again.
    with contextlib.suppress(Unavailable):
        await asyncio.to_thread(replicas.check_name)
    return replicas


def _service(
    engine: Engine,
    pool: AdapterPool,
    traffic: Traffic,
    description: PoolDescription,
    max_num_seqs: int,
) -> Service:
    generator = GeneratorServicer(
        Generator(engine, pool, traffic),
        description,
        concurrency=_BATCH_ITEMS_PER_SEQUENCE * max_num_seqs,
    )
    adapters = AdapterServicer(pool)

    def register(server: grpc.aio.Server) -> None:
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(generator, server)
        generator_pb2_grpc.add_AdapterServiceServicer_to_server(adapters, server)

    async def check_ready() -> None:
        await engine.check()
        pool.check_ready()

    services = generator_pb2.DESCRIPTOR.services_by_name
    return Service(
        register=register,
        descriptors=[services["GeneratorService"], services["AdapterService"]],
        check_ready=check_ready,
        endpoints={"openai": description.openai_url},
    )


def _import_vllm() -> tuple[ModuleType, ModuleType]:
    with large_imports():
        import torch  # noqa: PLC0415

        if not torch.cuda.is_available():
            # Else the first request for log probabilities waits 15 s for a compiler, if there is
            # one.
            os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        from tuneproof_generator.doors import openai_door  # noqa: PLC0415
        from tuneproof_generator.engine import vllm_engine  # noqa: PLC0415

    return openai_door, vllm_engine


def _options(settings: GeneratorSettings, folder: Path) -> EngineOptions:
    from tuneproof_generator.engine.arguments import EngineOptions  # noqa: PLC0415

    given: dict[str, Any] = {"folder": folder, "model_name": settings.served_name}
    others = {each.name for each in fields(EngineOptions)} - given.keys()
    return EngineOptions(**given, **settings.model_dump(include=others))


def _alone_in(cache: Path) -> contextlib.AbstractContextManager[None]:
    """Holds a cache folder for this process; another one would delete files that are in use.

    Raises:
        InvalidInput: when another process holds it.
    """
    return locked(
        cache / ".lock",
        lambda _: InvalidInput(
            f"another generator uses the cache {cache}; set another cache_dir", field="cache_dir"
        ),
    )
