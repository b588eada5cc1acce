"""The client's half: channels that retry what may be retried, and typed errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tuneproof.servicekit import tracing
from tuneproof.servicekit.call_spans import trace_call, with_metadata
from tuneproof.servicekit.errors import (
    DeadlineExceeded,
    Forbidden,
    TuneproofError,
    Unauthenticated,
    Unavailable,
)
from tuneproof.servicekit.reloading import Reloaded, read_secret
from tuneproof.servicekit.secure_channel import SecureChannel
from tuneproof.servicekit.status import error_of_call, has_details
from tuneproof.servicekit.tls import ClientTls

_MAX_MESSAGE_BYTES = 16 * 2**20
_RETRY = {
    "maxAttempts": 4,
    "initialBackoff": "0.2s",
    "maxBackoff": "3s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
}
_STATUS_LOST = "Internal error from Core"
"""What grpc.aio (1.78) says when a server ends a stream while a request is being sent, in place of
the status that it had not read yet."""
_KINDS: dict[str, type[grpc.aio.ClientInterceptor]] = {
    "intercept_unary_unary": grpc.aio.UnaryUnaryClientInterceptor,
    "intercept_unary_stream": grpc.aio.UnaryStreamClientInterceptor,
    "intercept_stream_unary": grpc.aio.StreamUnaryClientInterceptor,
    "intercept_stream_stream": grpc.aio.StreamStreamClientInterceptor,
}
Token = str | Path
"""A bearer token, or the file that holds it, which is read again when it changes."""
_UNKNOWN_EFFECT = descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN


def connect(
    target: str,
    *,
    services: Sequence[ServiceDescriptor],
    token: Token | None = None,
    tls: ClientTls | None = None,
    max_message_bytes: int = _MAX_MESSAGE_BYTES,
) -> grpc.aio.Channel:
    """A channel to a target in gRPC's syntax; calls go to all its addresses in turn.

    While the service is unavailable or overloaded, gRPC retries calls that the contract marks as
    idempotent, with growing pauses or after the pause that the server asks for. It never retries
    others. If `tracing` is on, each call is a span, and the server continues its trace.

    Args:
        target: `host:port`; `dns:///host:port`, as of a headless Kubernetes service, looked up
            again when a connection ends; or `ipv4:host:port,host:port`.
        token: sent as bearer token with every call.
        tls: what the server's certificate must show; None sends everything in plaintext.

    Raises:
        InvalidInput: the token's file cannot be read.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", service_config(services)),
        ("grpc.enable_retries", 1),
        ("grpc.lb_policy_name", "round_robin"),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_reconnect_backoff_ms", 3000),
        # 30 s by default: too long to find a new replica, or one that moved.
        ("grpc.dns_min_time_between_resolutions_ms", 2000),
    ]
    around = _interceptors(token)
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options, interceptors=around)
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))

    def make(credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(target, credentials, options=options, interceptors=around)

    return SecureChannel(tls, make)


def authorization(token: Token | None) -> Callable[[], dict[str, str]]:
    """Gives the header that carries a token at a moment; none without a token.

    Raises:
        InvalidInput: the token's file cannot be read.
    """
    if isinstance(token, Path):
        file = Reloaded([token], lambda: read_secret(token, "a bearer token"))
        return lambda: {"authorization": f"Bearer {file.now()}"}
    header = {"authorization": f"Bearer {token}"} if token else {}
    return lambda: header


def _interceptors(token: Token | None) -> list[grpc.aio.ClientInterceptor]:
    """Send the token and trace the call: one interceptor for each kind of call."""
    header = authorization(token)
    traced = tracing.is_on()

    async def intercept(_self: Any, continuation: Any, details: Any, request: Any) -> Any:
        details = with_metadata(details, header())
        if traced:
            return await trace_call(continuation, details, request)
        return await continuation(details, request)

    kinds = _KINDS if token or traced else {}
    return [type("Around", (kind,), {name: intercept})() for name, kind in kinds.items()]


def service_config(services: Sequence[ServiceDescriptor]) -> str:
    """gRPC's service config (JSON) with a retry policy for the idempotent methods."""
    names = [
        {"service": service.full_name, "method": method.name}
        for service in services
        for method in service.methods
        if method.GetOptions().idempotency_level != _UNKNOWN_EFFECT
    ]
    config = {"name": names, "retryPolicy": _RETRY}
    return json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [config]})


@contextmanager
def typed_errors(method: str = "", *, peer: str = "", if_away: str = "") -> Iterator[None]:
    """Turns a failed call into the error that the server raised, or into one that names the server.

    Args:
        method: the call's name, for messages.
        peer: what is called, as `the judge at host:1`, for messages.
        if_away: what to do when it cannot be reached, for the message.
    """
    try:
        yield
    except grpc.aio.AioRpcError as failure:
        raise _error_of(failure, method, peer, if_away) from None
    except asyncio.CancelledError:
        # grpc.aio (1.78) raises this for a status CANCELLED of a unary call too, which a server
        # that stops sends; only a task that somebody cancelled is really cancelled.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise _ended(method, peer) from None


def _error_of(
    failure: grpc.aio.AioRpcError, method: str, peer: str, if_away: str
) -> TuneproofError:
    error = error_of_call(failure)
    if has_details(failure):
        if peer and isinstance(error, Unauthenticated | Forbidden):
            error = _prefixed(error, peer)  # all services get one token: say which refuses it
        return error
    server, call = peer or "the server", f"the call {method}".rstrip()
    match failure.code():
        case grpc.StatusCode.UNAVAILABLE:
            return Unavailable(f"{server} cannot be reached ({failure.details()}){if_away}")
        case grpc.StatusCode.CANCELLED:
            return _ended(method, peer)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"{server} did not end {call} in time")
        case _ if failure.details() == _STATUS_LOST:
            return Unavailable(f"{server} broke off {call}; its log tells why")
        case _:
            return _prefixed(error, f"{server}, {method}" if method else server)


def _prefixed(error: TuneproofError, prefix: str) -> TuneproofError:
    error.message = f"{prefix}: {error.message}"
    error.args = (error.message,)
    return error


def _ended(method: str, peer: str) -> Unavailable:
    call = f"the call {method}".rstrip()
    return Unavailable(f"{peer or 'the server'} ended {call}; it may be stopping")


async def is_reachable(target: str, *, timeout: float, tls: ClientTls | None = None) -> bool:
    """Whether a gRPC server answers at a target within `timeout` seconds."""
    async with connect(target, services=(), tls=tls) as channel:
        try:
            async with asyncio.timeout(timeout):
                await channel.channel_ready()
        except TimeoutError:
            return False
    return True


async def is_ready(health_target: str, *, timeout: float = 2.0) -> bool:
    """Whether the service behind a health address says `ready`."""
    async with grpc.aio.insecure_channel(health_target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="ready")
        try:
            reply = await stub.Check(request, timeout=timeout)
        except grpc.aio.AioRpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


async def wait_ready(health_target: str, *, timeout: float) -> None:
    """Waits until a service says `ready`.

    Raises:
        Unavailable: when it does not within `timeout` seconds.
    """
    try:
        async with asyncio.timeout(timeout):
            while not await is_ready(health_target):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise Unavailable(
            f"the service at {health_target} was not ready within {timeout:.0f} s;"
            " its log tells why"
        ) from None
