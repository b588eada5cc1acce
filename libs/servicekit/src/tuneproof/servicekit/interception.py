"""One function around every call of a channel, whatever streams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

Around = Callable[[Any, grpc.aio.ClientCallDetails, Any], Awaitable[Any]]
"""Gets what continues the call, its details, and the request or requests; gives the call."""

_KINDS: tuple[tuple[type[grpc.aio.ClientInterceptor], str], ...] = (
    (grpc.aio.UnaryUnaryClientInterceptor, "intercept_unary_unary"),
    (grpc.aio.UnaryStreamClientInterceptor, "intercept_unary_stream"),
    (grpc.aio.StreamUnaryClientInterceptor, "intercept_stream_unary"),
    (grpc.aio.StreamStreamClientInterceptor, "intercept_stream_stream"),
)


def on_every_call(around: Around) -> list[grpc.aio.ClientInterceptor]:
    """The interceptors that a channel wants: one for each kind of call."""

    async def intercept(_self: Any, continuation: Any, details: Any, request: Any) -> Any:
        return await around(continuation, details, request)

    return [
        type(f"Around{kind.__name__}", (kind,), {method: intercept})() for kind, method in _KINDS
    ]


def with_metadata(details: Any, entries: dict[str, str]) -> grpc.aio.ClientCallDetails:
    """A call's details with more metadata; keys are in lower case."""
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    for key, value in entries.items():
        metadata.add(key, value)
    changed: grpc.aio.ClientCallDetails = details._replace(metadata=metadata)
    return changed
