"""The judge's traces: from the caller through its stages to the endpoint."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tuneproof.judge.v1 import judge_pb2 as pb
from tuneproof.judge.v1 import judge_pb2_grpc
from tuneproof.servicekit import tracing
from tuneproof.servicekit.client import connect
from tuneproof.servicekit.trace_testing import Collector, attributes_of, collecting

pytestmark = pytest.mark.timeout(60)
JUDGE = pb.DESCRIPTOR.services_by_name["JudgeService"]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as kept:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", kept.endpoint)
        yield kept


async def test_every_request_to_the_endpoint_is_a_part_of_the_callers_trace(
    judge, fake, collector: Collector
) -> None:
    request = pb.GradeRequest(
        question="Which power?",
        answer="46 dBm, the secret answer",
        references=["46 dBm"],
        rubrics=["accuracy@1"],
        repeats=3,
    )
    with tracing.tracing("sample"):
        async with judge() as target, connect(target, services=[JUDGE]) as channel:
            with tracing.span("root"):
                stub = judge_pb2_grpc.JudgeServiceStub(channel)
                await stub.Grade(request, timeout=20)
    asked = collector.named("chat fake", "CLIENT")
    assert len(asked) == 3
    assert {span.trace_id for span in asked} == {collector.one("root").trace_id}
    assert {span.parent_span_id for span in asked} == {collector.one("judge").span_id}
    served = collector.one("tuneproof.judge.v1.JudgeService/Grade", "SERVER")
    assert collector.one("judge").parent_span_id == served.span_id
    assert collector.one("lexical").parent_span_id == served.span_id
    assert {attributes_of(span)["gen_ai.usage.input_tokens"] for span in asked} == {100}
    assert len({attributes_of(span)["gen_ai.request.seed"] for span in asked}) == 3
    # The endpoint can go on with the trace, each request with its own span.
    assert sorted(request.traceparent[:-3] for request in fake.asked) == sorted(
        f"00-{span.trace_id.hex()}-{span.span_id.hex()}" for span in asked
    )
    assert not any(b"secret answer" in span.SerializeToString() for span in collector.spans)


async def test_an_untraced_endpoint_gets_no_header(judge, fake) -> None:
    async with judge() as target, connect(target, services=[JUDGE]) as channel:
        request = pb.GradeRequest(
            question="q", answer="a", references=["a"], rubrics=["accuracy@1"], repeats=1
        )
        stub = judge_pb2_grpc.JudgeServiceStub(channel)
        await stub.Grade(request, timeout=20)
    assert [request.traceparent for request in fake.asked] == [""]
