"""Spans of gRPC calls, on both sides, in the words of OpenTelemetry's conventions for RPC."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping
from functools import partial
from typing import Any

import grpc
from opentelemetry import context as contexts
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context

from tuneproof.servicekit import tracing

# The server's own faults; NOT_FOUND, say, is a good answer to a bad question.
_SERVER_ERRORS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)


def start_served(method: str, metadata: Iterable[tuple[str, str | bytes]] | None) -> Span:
    """The span of a call that this process answers, a part of the caller's where it names one.

    It stays current in the call's task, which gRPC makes for each call and which ends with it.

    Args:
        method: `package.Service/Method`.
    """
    sent = {key: value for key, value in metadata or () if isinstance(value, str)}
    within = tracing.from_headers(sent)
    opened = tracing.start(method, _attributes(method), kind=SpanKind.SERVER, within=within)
    contexts.attach(set_span_in_context(opened, within))
    return opened


def end_served(opened: Span, code: str, why: str) -> None:
    """Ends the span of a call that was answered with a status code, as `NOT_FOUND`."""
    _end(opened, code, why, is_error=code in _SERVER_ERRORS)


async def trace_call(continuation: Any, details: Any, request: Any) -> Any:
    """Makes a client's call with a span, and tells the server which.

    Args:
        continuation: makes the call.
        request: one, or the iterator of a stream.
    """
    method = details.method.decode() if isinstance(details.method, bytes) else details.method
    name = method.removeprefix("/")
    opened = tracing.start(name, _attributes(name), kind=SpanKind.CLIENT)
    carried = tracing.headers(set_span_in_context(opened))
    try:
        call = await continuation(with_metadata(details, carried), request)
    except BaseException as error:
        tracing.fail(opened, error)
        opened.end()
        raise
    call.add_done_callback(partial(_end_made, opened))
    return call


def with_metadata(details: Any, entries: Mapping[str, str]) -> Any:
    """A client's call details with more metadata; keys are in lower case."""
    metadata = grpc.aio.Metadata(*(details.metadata or ()), *entries.items())
    return details._replace(metadata=metadata)


def _end_made(opened: Span, call: Any) -> None:
    code: grpc.StatusCode = _at_once(call.code())
    why = "" if code is grpc.StatusCode.OK else _at_once(call.details())
    _end(opened, code.name, why, is_error=code is not grpc.StatusCode.OK)


def _at_once(answer: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that does not wait: here, of a finished call.

    A task for it could be too late: the event loop may end with the call.
    """
    try:
        answer.send(None)
    except StopIteration as done:
        return done.value
    answer.close()
    raise RuntimeError("a finished call lacks a status")


def _attributes(method: str) -> dict[str, tracing.Value]:
    return {"rpc.system.name": "grpc", "rpc.method": method}


def _end(opened: Span, code: str, why: str | None, *, is_error: bool) -> None:
    opened.set_attribute("rpc.response.status_code", code)
    if is_error:
        opened.set_attribute("error.type", code)
        opened.set_status(StatusCode.ERROR, why or code)
    opened.end()
