"""For tests: a collector in this process that receives spans by OTLP, as a real one does."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector(otlp_grpc.TraceServiceServicer):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        """Names of the programs that sent some."""
        self.endpoint = ""
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""

    def Export(
        self,
        request: otlp.ExportTraceServiceRequest,
        context: grpc.ServicerContext,  # noqa: ARG002 - gRPC's signature
    ) -> otlp.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            for attribute in resource.resource.attributes:
                if attribute.key == "service.name":
                    self.services.add(attribute.value.string_value)
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return otlp.ExportTraceServiceResponse()

    def one(self, name: str, kind: str = "INTERNAL") -> Span:
        """The only span of a name and kind.

        Raises:
            LookupError: when there is none, or several.
        """
        found = self.named(name, kind)
        if len(found) != 1:
            raise LookupError(f"{len(found)} {kind} spans {name!r}; there are {self.names()}")
        return found[0]

    def named(self, name: str, kind: str = "INTERNAL") -> list[Span]:
        """The spans of a name and kind, as they came."""
        number = Span.SpanKind.Value(f"SPAN_KIND_{kind}")
        return [span for span in self.spans if (span.name, span.kind) == (name, number)]

    def names(self) -> list[str]:
        """The different names, sorted."""
        return sorted({span.name for span in self.spans})


def attributes_of(span: Span) -> dict[str, str | int]:
    """A span's attributes, those that are texts or whole numbers."""
    return {
        each.key: each.value.string_value
        if each.value.HasField("string_value")
        else each.value.int_value
        for each in span.attributes
    }


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free loopback port.

    It has threads of its own, since sending the last spans blocks the sender's event loop.
    """
    server = grpc.server(ThreadPoolExecutor(2))
    kept = Collector()
    otlp_grpc.add_TraceServiceServicer_to_server(kept, server)  # type: ignore[no-untyped-call]
    kept.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield kept
    finally:
        server.stop(None).wait()
