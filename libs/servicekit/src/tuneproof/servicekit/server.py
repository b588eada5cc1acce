"""Starting, serving and ending a service."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tuneproof.servicekit.auth import Authenticator, TokensFile
from tuneproof.servicekit.calls import CallInterceptor, Limits
from tuneproof.servicekit.errors import InvalidInput, TuneproofError
from tuneproof.servicekit.files import write_atomically
from tuneproof.servicekit.http_door import HttpDoor, serve_http
from tuneproof.servicekit.logs import configure_logging
from tuneproof.servicekit.metrics_page import serve_metrics
from tuneproof.servicekit.settings import (
    ServiceSettings,
    join_address,
    load_settings,
    split_address,
)
from tuneproof.servicekit.tls import ServerTls
from tuneproof.servicekit.token_review import TokenReview
from tuneproof.servicekit.tracing import tracing

S = TypeVar("S", bound=ServiceSettings)

_READY_POLL_SECONDS = 1.0
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_log = structlog.get_logger("tuneproof.server")


@dataclass(frozen=True)
class Guard:
    """What protects every port of a service but the health port."""

    authenticator: Authenticator | None = None
    """Checks the tokens of calls."""
    tls: ServerTls | None = None
    """Encrypts."""

    @classmethod
    def of(cls, settings: ServiceSettings, name: str) -> Guard:
        """As the settings say.

        Raises:
            InvalidInput: tokens or certificates cannot be read.
        """
        authenticator: Authenticator | None = None
        if settings.tokens_file:
            authenticator = TokensFile(settings.tokens_file)
        elif settings.token_review:
            authenticator = TokenReview.in_pod(name, settings.token_audience)
        folder, mutual = settings.tls_dir, settings.tls_client_certificates
        return cls(authenticator, ServerTls(folder, client_certificates=mutual) if folder else None)


@dataclass(frozen=True)
class Service:
    """What the kit needs to serve a service."""

    register: Callable[[grpc.aio.Server], None]
    """Adds the servicers to a server."""
    descriptors: Sequence[ServiceDescriptor]
    """The services of the contract that `register` adds."""
    check_ready: Callable[[], Awaitable[None]]
    """Returns if calls can be served; else raises `Unavailable` with the reason."""
    endpoints: Mapping[str, str] = field(default_factory=dict)
    """More addresses to announce, by name."""
    http: HttpDoor | None = None
    """Calls that are taken by HTTP too."""


def run(
    settings_type: type[S],
    build: Callable[[S], AbstractAsyncContextManager[Service]],
    *,
    name: str,
    examples: str = "",
    argv: Sequence[str] | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> int:
    """Runs a service until SIGTERM or SIGINT; the exit code.

    While `build` starts the backend, the health server already answers: live, not ready.

    Args:
        loop_factory: makes the event loop; asyncio's own by default.
    """
    program = f"tuneproof-{name}"
    settings = load_settings(settings_type, program=program, examples=examples, arguments=argv)
    configure_logging(name, level=settings.log_level, as_json=settings.log_format == "json")
    try:
        with tracing(program), asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(_serve(settings, build, name))
    except TuneproofError as error:
        print(f"{program}: {error.message}", file=sys.stderr)
        return 1
    return 0


async def _serve(
    settings: S, build: Callable[[S], AbstractAsyncContextManager[Service]], name: str
) -> None:
    stop = asyncio.Event()
    main = asyncio.current_task()
    loop = asyncio.get_running_loop()
    started = False

    def end() -> None:
        stop.set()
        if not started and main is not None:
            main.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    guard = Guard.of(settings, name)
    metrics_url = serve_metrics(settings.metrics_bind, guard.tls.context() if guard.tls else None)
    try:
        async with _health_server(settings.health_bind) as (states, health_target):
            async with build(settings) as service:
                started = True
                # The objects that exist now live as long as the process: the collector skips them.
                gc.collect()
                gc.freeze()
                limits = Limits(calls=settings.max_calls, watchers=settings.max_watchers)
                around = CallInterceptor(service.descriptors, guard.authenticator, limits)
                async with (
                    _grpc_server(settings, service, guard, around) as target,
                    _http_server(settings, service, guard, around) as http,
                ):
                    addresses = {
                        "grpc": target,
                        "health": health_target,
                        "metrics": metrics_url,
                        **service.endpoints,
                        **http,
                    }
                    _announce(settings, name, addresses)
                    await _follow_readiness(states, service, stop)
                    _log.info("draining", service=name)
            _log.info("ended", service=name)
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        _log.info("ended before it served", service=name)


async def _follow_readiness(
    states: health.aio.HealthServicer, service: Service, stop: asyncio.Event
) -> None:
    ready: bool | None = None
    while not stop.is_set():
        try:
            await service.check_ready()
            now, reason = True, ""
        except TuneproofError as error:
            now, reason = False, error.message
        if now is not ready:
            ready = now
            _log.info("ready" if ready else "not ready", reason=reason)
            await _set_ready(states, ready)
        try:
            await asyncio.wait_for(stop.wait(), _READY_POLL_SECONDS)
        except TimeoutError:
            continue
    await _set_ready(states, False)


async def _set_ready(states: health.aio.HealthServicer, ready: bool) -> None:
    for service in ("ready", ""):
        await states.set(service, _SERVING if ready else _NOT_SERVING)


@asynccontextmanager
async def _health_server(bind: str) -> AsyncIterator[tuple[health.aio.HealthServicer, str]]:
    states = health.aio.HealthServicer()
    await states.set("live", _SERVING)
    await _set_ready(states, False)
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(states, server)
    target = _listen(server, bind, "health_bind")
    await server.start()
    try:
        yield states, target
    finally:
        await server.stop(0.1)


@asynccontextmanager
async def _grpc_server(
    settings: ServiceSettings, service: Service, guard: Guard, around: CallInterceptor
) -> AsyncIterator[str]:
    age = ConnectionAge(
        settings.max_connection_age_seconds, settings.max_connection_age_grace_seconds
    )
    server = make_server(service, around, settings.max_message_bytes, age)
    target = _listen(server, settings.bind, "bind", guard.tls)
    await server.start()
    try:
        yield target
    finally:
        around.end_watchers()
        await server.stop(settings.drain_seconds)


@asynccontextmanager
async def _http_server(
    settings: ServiceSettings, service: Service, guard: Guard, around: CallInterceptor
) -> AsyncIterator[Mapping[str, str]]:
    """The HTTP door's address by its name, if the service has such a door."""
    if service.http is None:
        yield {}
        return
    async with serve_http(
        service.http,
        around,
        guard.tls,
        max_bytes=settings.max_message_bytes,
        drain_seconds=settings.drain_seconds,
    ) as url:
        yield {"http": url}


@dataclass(frozen=True)
class ConnectionAge:
    """When a server asks its clients to reconnect."""

    seconds: float = 0
    """Age at which a connection takes no new call; 0 means never. gRPC varies it by a tenth."""
    grace_seconds: float = 0
    """How long its calls may still run; 0 lets them all finish."""

    def options(self) -> list[tuple[str, int]]:
        """As gRPC's channel arguments."""
        wanted = {"age": self.seconds, "age_grace": self.grace_seconds if self.seconds else 0}
        return [
            (f"grpc.max_connection_{name}_ms", max(1, round(seconds * 1000)))
            for name, seconds in wanted.items()
            if seconds
        ]


def make_server(
    service: Service,
    around: CallInterceptor,
    max_message_bytes: int,
    age: ConnectionAge = ConnectionAge(),
) -> grpc.aio.Server:
    """A server with the service, reflection and what surrounds each call."""
    server = grpc.aio.server(
        interceptors=[around],
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.so_reuseport", 0),
            *age.options(),
        ],
    )
    service.register(server)
    names = [descriptor.full_name for descriptor in service.descriptors]
    reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
    return server


def _listen(server: grpc.aio.Server, bind: str, setting: str, tls: ServerTls | None = None) -> str:
    host, _ = split_address(bind)
    try:
        port = add_port(server, bind, tls)
    except RuntimeError:
        raise InvalidInput(
            f"cannot listen on {bind}: the port is in use, or this machine lacks the address;"
            f" choose another {setting}"
        ) from None
    return join_address(host, port)


def add_port(server: grpc.aio.Server, bind: str, tls: ServerTls | None) -> int:
    """Lets a server listen, with or without TLS; its port.

    Raises:
        RuntimeError: by gRPC, when the address cannot be bound.
    """
    if tls is None:
        return server.add_insecure_port(bind)
    return server.add_secure_port(bind, tls.credentials())


def _announce(settings: ServiceSettings, name: str, addresses: Mapping[str, str]) -> None:
    _log.info("serving", service=name, **addresses)
    if settings.announce_file:
        content = {"name": name, "pid": os.getpid(), **addresses}
        write_atomically(settings.announce_file, json.dumps(content).encode())
