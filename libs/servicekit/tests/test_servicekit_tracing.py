"""Traces as a collector receives them by OTLP: from this process and from a service's."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from prometheus_client import REGISTRY

from tuneproof.retriever.v1 import retriever_pb2, retriever_pb2_grpc
from tuneproof.servicekit import errors, tracing
from tuneproof.servicekit.auth import Tokens
from tuneproof.servicekit.batch import answer_each
from tuneproof.servicekit.client import connect, typed_errors
from tuneproof.servicekit.server import Service
from tuneproof.servicekit.testing import serving
from tuneproof.servicekit.timing import Stages
from tuneproof.servicekit.trace_testing import Collector, attributes_of, collecting

pytestmark = pytest.mark.timeout(60)

RETRIEVER = retriever_pb2.DESCRIPTOR.services_by_name["RetrieverService"]
GET = "tuneproof.retriever.v1.RetrieverService/GetCorpus"
BATCH = "tuneproof.retriever.v1.RetrieverService/SearchBatch"
TOKEN = "r" * 16


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as kept:
        yield kept


@pytest.fixture
def environment(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    # The exporter reads the process's own.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    return dict(os.environ)


class Retriever(retriever_pb2_grpc.RetrieverServiceServicer):
    """Measures two stages; knows no corpus of a certain name."""

    async def GetCorpus(self, request, context):
        stages = Stages("tracing-test")
        with stages.measure("outer"), stages.measure("inner"):
            if request.name == "missing":
                raise errors.NotFound("no corpus of that name")
            if request.name == "defect":
                raise RuntimeError("password=hunter2")
        return retriever_pb2.GetCorpusResponse()

    async def SearchBatch(self, request_iterator, context):
        async for response in answer_each(request_iterator, self._one, self._no, concurrency=2):
            yield response

    async def _one(self, request):
        if request.id == "bad":
            raise errors.InvalidInput("the query is blank")
        return retriever_pb2.SearchBatchResponse(id=request.id)

    def _no(self, request, status):
        return retriever_pb2.SearchBatchResponse(id=request.id, error=status)


@asynccontextmanager
async def retriever(**connecting: Any) -> AsyncIterator[Any]:
    async def ready() -> None:
        return None

    service = Service(
        register=lambda server: retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(
            Retriever(), server
        ),
        descriptors=[RETRIEVER],
        check_ready=ready,
    )
    tokens = Tokens(((TOKEN.encode(), "use"),)) if connecting else None
    async with (
        serving(service, tokens=tokens) as target,
        connect(target, services=[RETRIEVER], **connecting) as channel,
    ):
        yield retriever_pb2_grpc.RetrieverServiceStub(channel)


async def get(stub: Any, name: str = "") -> None:
    with typed_errors():
        await stub.GetCorpus(retriever_pb2.GetCorpusRequest(name=name), timeout=10)


@pytest.mark.parametrize("connecting", [{}, {"token": TOKEN}])
async def test_a_call_is_one_trace_on_both_sides(
    collector: Collector, environment: dict[str, str], connecting: dict[str, str]
) -> None:
    with tracing.tracing("sample", environment):
        async with retriever(**connecting) as stub:
            with tracing.span("root", {"tuneproof.study": "s"}):
                await get(stub)
    chain = [
        collector.one("root"),
        collector.one(GET, "CLIENT"),
        collector.one(GET, "SERVER"),
        collector.one("outer"),
        collector.one("inner"),
    ]
    assert len(collector.spans) == len(chain)
    assert {span.trace_id for span in chain} == {chain[0].trace_id}
    assert chain[0].parent_span_id == b""
    for parent, child in pairwise(chain):
        assert child.parent_span_id == parent.span_id
        assert parent.start_time_unix_nano <= child.start_time_unix_nano
    assert attributes_of(chain[0]) == {"tuneproof.study": "s"}
    for side in chain[1:3]:
        assert attributes_of(side) == {
            "rpc.system.name": "grpc",
            "rpc.method": GET,
            "rpc.response.status_code": "OK",
        }
        assert side.status.code == Status.STATUS_CODE_UNSET
    assert collector.services == {"sample"}


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("missing", (errors.NotFound, "NOT_FOUND", False)),
        ("defect", (errors.Internal, "INTERNAL", True)),
    ],
)
async def test_a_failed_call_says_so_in_its_spans(
    collector: Collector,
    environment: dict[str, str],
    name: str,
    ending: tuple[type[Exception], str, bool],
) -> None:
    error, code, servers_fault = ending
    with tracing.tracing("sample", environment):
        async with retriever() as stub:
            with pytest.raises(error):
                await get(stub, name)
    made, served = collector.one(GET, "CLIENT"), collector.one(GET, "SERVER")
    assert attributes_of(made)["rpc.response.status_code"] == code
    assert attributes_of(served)["rpc.response.status_code"] == code
    assert made.status.code == Status.STATUS_CODE_ERROR
    assert (served.status.code == Status.STATUS_CODE_ERROR) is servers_fault
    assert collector.one("inner").status.code == Status.STATUS_CODE_ERROR
    assert b"hunter2" not in b"".join(span.SerializeToString() for span in collector.spans)


async def test_a_call_that_cannot_be_made_is_a_span_too(
    collector: Collector, environment: dict[str, str]
) -> None:
    with tracing.tracing("sample", environment):
        async with connect("127.0.0.1:1", services=[]) as channel:
            with pytest.raises(errors.Unavailable):
                await get(retriever_pb2_grpc.RetrieverServiceStub(channel))
    made = collector.one(GET, "CLIENT")
    assert attributes_of(made)["error.type"] == "UNAVAILABLE"
    assert made.status.code == Status.STATUS_CODE_ERROR


async def test_items_of_a_stream_are_spans_and_fail_alone(
    collector: Collector, environment: dict[str, str]
) -> None:
    requests = [retriever_pb2.SearchBatchRequest(id=name) for name in ("a", "bad", "c")]
    with tracing.tracing("sample", environment):
        async with retriever() as stub:
            replies = [reply.id async for reply in stub.SearchBatch(iter(requests), timeout=10)]
    assert sorted(replies) == ["a", "bad", "c"]
    served = collector.one(BATCH, "SERVER")
    items = {
        attributes_of(span)["tuneproof.item"]: span
        for span in collector.spans
        if span.name == "item"
    }
    assert set(items) == {"a", "bad", "c"}
    assert {span.parent_span_id for span in items.values()} == {served.span_id}
    assert items["bad"].status.message == "the query is blank"
    assert items["a"].status.code == Status.STATUS_CODE_UNSET
    for side in (served, collector.one(BATCH, "CLIENT")):
        assert attributes_of(side)["rpc.response.status_code"] == "OK"


async def test_an_abandoned_stream_ends_its_spans(
    collector: Collector, environment: dict[str, str]
) -> None:
    async def endless() -> AsyncIterator[Any]:
        yield retriever_pb2.SearchBatchRequest(id="a")
        await asyncio.Event().wait()

    def ended() -> float:
        labels = {"service": BATCH.partition("/")[0], "method": "SearchBatch", "code": "CANCELLED"}
        return REGISTRY.get_sample_value("tuneproof_rpc_calls_total", labels) or 0.0

    before = ended()
    with tracing.tracing("sample", environment):
        async with retriever() as stub:
            call = stub.SearchBatch(endless(), timeout=30)
            assert (await call.read()).id == "a"
            call.cancel()
            async with asyncio.timeout(10):
                while ended() == before:
                    await asyncio.sleep(0.01)
    assert attributes_of(collector.one(BATCH, "CLIENT"))["rpc.response.status_code"] == "CANCELLED"
    assert attributes_of(collector.one(BATCH, "SERVER"))["rpc.response.status_code"] == "CANCELLED"


@pytest.mark.parametrize(
    "changes",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none"},
    ],
)
async def test_nothing_is_sent_unless_it_is_asked_for(
    collector: Collector, environment: dict[str, str], changes: dict[str, str]
) -> None:
    with tracing.tracing("sample", environment | changes):
        assert not tracing.is_on()
        async with retriever() as stub:
            with tracing.span("root"):
                await get(stub)
                assert tracing.headers() == {}
    assert collector.spans == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
    ],
)
def test_a_value_that_does_not_fit_is_told(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(errors.InvalidInput) as caught, tracing.tracing("x", dict(os.environ)):
        pass
    assert value in caught.value.message


@pytest.mark.timeout(25)
def test_a_collector_that_is_gone_holds_nobody_up(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The exporter would try for an hour, the SDK wait 30 s for it.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    monkeypatch.setattr(tracing, "_LAST_SECONDS", 0.1)
    with tracing.tracing("sample", environment), tracing.span("lost"):
        pass
    assert not tracing.is_on()


def test_stages_measured_elsewhere_follow_each_other(
    collector: Collector, environment: dict[str, str]
) -> None:
    with tracing.tracing("sample", environment), tracing.span("generate", current=False) as parent:
        tracing.record(parent, {"queue": 0.5, "first_token": 0.25, "decode": 2.0})
    spans = [collector.one(name) for name in ("queue", "first_token", "decode")]
    assert {span.parent_span_id for span in spans} == {collector.one("generate").span_id}
    lengths = [span.end_time_unix_nano - span.start_time_unix_nano for span in spans]
    assert lengths == [500_000_000, 250_000_000, 2_000_000_000]
    assert spans[0].end_time_unix_nano == spans[1].start_time_unix_nano
    assert spans[1].end_time_unix_nano == spans[2].start_time_unix_nano


def test_headers_carry_a_trace_to_another_process(
    collector: Collector, environment: dict[str, str]
) -> None:
    with tracing.tracing("sample", environment):
        with tracing.span("asks"):
            carried = tracing.headers()
        with tracing.span("answers", within=tracing.from_headers(carried)):
            pass
        with tracing.span("alone", within=tracing.from_headers({"traceparent": "rubbish"})):
            pass
    assert collector.one("answers").parent_span_id == collector.one("asks").span_id
    assert collector.one("alone").parent_span_id == b""


def test_stages_are_a_metric() -> None:
    labels = {"service": "tracing-test", "stage": "embed"}
    before = REGISTRY.get_sample_value("tuneproof_stage_seconds_count", labels) or 0.0
    with Stages("tracing-test").measure("embed"):
        pass
    assert REGISTRY.get_sample_value("tuneproof_stage_seconds_count", labels) == before + 1


PROGRAM = """
import sys
from contextlib import asynccontextmanager
if "--no-sdk" in sys.argv:
    sys.argv.remove("--no-sdk")
    sys.modules["opentelemetry.sdk"] = None
from tuneproof.servicekit import tracing
from tuneproof.servicekit.server import Service, run
from tuneproof.servicekit.settings import ServiceSettings, settings_config

class SampleSettings(ServiceSettings):
    '''A sample.'''
    model_config = settings_config("sample")

@asynccontextmanager
async def build(settings):
    with tracing.span("start"):
        pass
    async def ready():
        return None
    yield Service(register=lambda server: None, descriptors=[], check_ready=ready)

raise SystemExit(run(SampleSettings, build, name="sample"))
"""


async def announced(path: Path, process: subprocess.Popen[Any]) -> None:
    while not path.exists():
        assert process.poll() is None
        await asyncio.sleep(0.05)


@pytest.mark.process
async def test_a_service_sends_what_is_left_when_it_is_told_to_end(
    collector: Collector, environment: dict[str, str], tmp_path: Path
) -> None:
    # So late that only the end can have sent it.
    environment |= {"OTEL_BSP_SCHEDULE_DELAY": "3600000"}
    command = [sys.executable, "-c", PROGRAM, "--announce-file", str(tmp_path / "at")]
    process = subprocess.Popen(command, env=environment)
    try:
        await announced(tmp_path / "at", process)
        assert collector.spans == []
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0
    finally:
        process.kill()
        process.wait()
    assert collector.one("start").parent_span_id == b""
    assert collector.services == {"tuneproof-sample"}


@pytest.mark.process
def test_a_missing_sdk_is_one_line(environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", PROGRAM, "--no-sdk"]
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 1
    assert "tuneproof-servicekit[otel]" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.process
def test_without_the_endpoint_the_sdk_is_not_even_imported() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    program = (
        "import sys\n"
        "from tuneproof.servicekit import client, server, tracing\n"
        "with tracing.tracing('x'):\n"
        "    print('opentelemetry.sdk' in sys.modules)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == ["False"]
