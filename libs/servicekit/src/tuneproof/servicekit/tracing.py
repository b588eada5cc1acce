"""Traces by OpenTelemetry, sent where its standard variables say.

Traces are on when OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set. The SDK
comes with the extra `otel` and is imported only then. When they are off, a span costs a test for
None.

Spans hold names, sizes and times; never a question, a passage, an answer or a token.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tuneproof.servicekit.errors import InvalidInput, TuneproofError

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_W3C = TraceContextTextMapPropagator()

_LAST_SECONDS = 5.0

# Ours and not the API's global one: that can be set once in a process and never ended, and vLLM
# (0.32) sets it too.
_tracer: Tracer | None = None

Value = str | bool | int | float


@contextmanager
def tracing(service: str, environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Sends this process's spans while the block runs, where the environment asks for it.

    At the end it sends the rest, or gives up after some seconds.

    Args:
        service: the name of the program; OTEL_SERVICE_NAME wins over it.

    Raises:
        InvalidInput: when traces are asked for and cannot be sent: the SDK is not installed, or a
            variable has a value that does not fit.
    """
    global _tracer  # noqa: PLW0603 - one process, one place where its spans go
    if not _is_wanted(environment):
        yield
        return
    provider, exporter = _provider(service, environment)
    _tracer = provider.get_tracer("tuneproof")
    try:
        yield
    finally:
        _tracer = None
        _send_the_rest(provider, exporter)


def is_on() -> bool:
    """Whether spans are sent."""
    return _tracer is not None


def start(
    name: str,
    attributes: Mapping[str, Value] | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    within: Context | None = None,
) -> Span:
    """A span that its caller ends."""
    if _tracer is None:
        return INVALID_SPAN
    return _tracer.start_span(name, context=within, kind=kind, attributes=attributes)


@contextmanager
def span(
    name: str,
    attributes: Mapping[str, Value] | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    within: Context | None = None,
    current: bool = True,
) -> Iterator[Span]:
    """A span around a block.

    Args:
        within: what it is a part of; without it, of what is under way here.
        current: spans of the block become its parts. Not for a block of an asynchronous generator
            that yields: it may be closed in another task, where the context cannot be put back.
    """
    if _tracer is None:
        yield INVALID_SPAN
        return
    opened = start(name, attributes, kind=kind, within=within)
    token = contexts.attach(trace.set_span_in_context(opened, within)) if current else None
    try:
        yield opened
    except BaseException as error:
        fail(opened, error)
        raise
    finally:
        if token is not None:
            contexts.detach(token)
        opened.end()


def fail(opened: Span, error: BaseException) -> None:
    """Notes an error in a span; only the type of a foreign error, whose text may be secret."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit | KeyboardInterrupt):
        opened.set_attribute("error.type", "cancelled")
        return
    if isinstance(error, SystemExit) and not error.code:
        return
    opened.set_attribute("error.type", type(error).__name__)
    opened.set_status(
        StatusCode.ERROR,
        error.message if isinstance(error, TuneproofError) else type(error).__name__,
    )


def record(parent: Span, stages: Mapping[str, float]) -> None:
    """Parts of a span that were measured elsewhere, as seconds by name.

    They are drawn one after the other, so that the last one ends now.
    """
    if _tracer is None:
        return
    begin = time.time_ns() - round(sum(stages.values()) * 1e9)
    within = trace.set_span_in_context(parent)
    for name, seconds in stages.items():
        end = begin + round(seconds * 1e9)
        _tracer.start_span(name, context=within, start_time=begin).end(end_time=end)
        begin = end


def here() -> Context:
    """What is under way here: the parent of a span that another task will make later."""
    return contexts.get_current()


def headers(within: Context | None = None) -> dict[str, str]:
    """W3C headers that continue the trace in another process; empty when off."""
    carrier: dict[str, str] = {}
    if _tracer is not None:
        _W3C.inject(carrier, within)
    return carrier


def variables() -> dict[str, str]:
    """The same as environment variables, for a process that this one starts."""
    return {key.upper(): value for key, value in headers().items()}


def from_variables(environment: Mapping[str, str] = os.environ) -> Context:
    """The context in which this process was started."""
    return from_headers({key: environment.get(key.upper(), "") for key in _W3C.fields})


def from_headers(carrier: Mapping[str, str]) -> Context:
    """The context that W3C headers carry; an empty one where they carry none."""
    return _W3C.extract(carrier, Context())


def _is_wanted(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if not any(environment.get(name, "").strip() for name in _ENDPOINTS):
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if exporter not in ("otlp", "none"):
        raise InvalidInput(
            f"OTEL_TRACES_EXPORTER is {exporter!r}; only otlp and none are known here"
        )
    return exporter == "otlp"


def _send_the_rest(provider: Any, exporter: Any) -> None:
    # The SDK (1.45) tries for 30 s to reach a collector that is gone: a stop must not take so long.
    limit = threading.Timer(_LAST_SECONDS, exporter.shutdown)
    limit.daemon = True
    limit.start()
    provider.shutdown()
    limit.cancel()


def _provider(service: str, environment: Mapping[str, str]) -> tuple[Any, Any]:
    try:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        exporter_type = _exporter_type(environment)
    except ImportError as error:
        asked = next(name for name in _ENDPOINTS if environment.get(name, "").strip())
        raise InvalidInput(
            f"{asked} asks for traces, but {error.name} is not installed; install"
            f" 'tuneproof-servicekit[otel]', or unset {asked}"
        ) from None
    named = {} if environment.get("OTEL_SERVICE_NAME") else {"service.name": service}
    resource = Resource.create({"service.namespace": "tuneproof", **named})
    try:
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = exporter_type()
        provider.add_span_processor(BatchSpanProcessor(exporter))
    except ValueError as error:
        raise InvalidInput(f"the variables OTEL_… do not fit: {error}") from None
    return provider, exporter


def _exporter_type(environment: Mapping[str, str]) -> Any:
    protocol = next((found for name in _PROTOCOLS if (found := environment.get(name))), "grpc")
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter  # noqa: PLC0415

        return trace_exporter.OTLPSpanExporter
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http import (  # noqa: PLC0415
            trace_exporter as over_http,
        )

        return over_http.OTLPSpanExporter
    raise InvalidInput(
        f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; grpc and http/protobuf are known here"
    )
