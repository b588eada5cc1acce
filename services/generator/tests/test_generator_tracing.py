"""What the running service tells of a request: spans into the engine, tokens by adapter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as rpc
from tuneproof.servicekit.client import connect
from tuneproof.servicekit.trace_testing import Collector, attributes_of

pytestmark = [pytest.mark.engine, pytest.mark.timeout(360)]

_SERVICES = list(pb.DESCRIPTOR.services_by_name.values())
_STAGES = ("queue", "first_token", "decode")
_PARENT = "b7ad6b7169203331"


def header(trace: str) -> str:
    return f"00-{trace}-{_PARENT}-01"


async def arrived(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.05)


async def ready(generator, ref: str) -> None:
    token = generator.manage_token
    async with connect(generator.target, services=_SERVICES, token=token) as channel:
        adapters = rpc.AdapterServiceStub(channel)
        await adapters.DeclareAdapter(pb.DeclareAdapterRequest(ref=ref))
        watching = adapters.WatchAdapters(pb.WatchAdaptersRequest(refs=[ref]), timeout=60)
        async for response in watching:
            if response.adapter.state == pb.ADAPTER_STATE_READY:
                watching.cancel()
                return


async def tokens(generator, ref: str) -> dict[str, float]:
    async with httpx.AsyncClient() as client:
        page = (await client.get(str(generator.addresses["metrics"]))).text
    return {
        sample.labels["kind"]: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "tuneproof_generator_tokens_total" and sample.labels["adapter"] == ref
    }


def assert_engine_stages(collector: Collector, parent: bytes) -> None:
    spans = [
        [span for span in collector.named(stage) if span.parent_span_id == parent]
        for stage in _STAGES
    ]
    assert [len(found) for found in spans] == [1, 1, 1]
    (queue,), (first,), (decode,) = spans
    assert queue.end_time_unix_nano == first.start_time_unix_nano
    assert first.end_time_unix_nano == decode.start_time_unix_nano


async def settled_tokens(generator, ref: str) -> dict[str, float]:
    """As `tokens`, once what earlier tests left in the engine is counted too."""
    before = None
    while before != (now := await tokens(generator, ref)):
        before = now
        await asyncio.sleep(0.5)
    return now


async def test_a_request_is_traced_into_the_engine(generator, lab, collector: Collector) -> None:
    ref, trace = lab.refs["one"], "0af7651916cd43dd8448eb211c80319c"
    await ready(generator, ref)
    before = await settled_tokens(generator, ref)
    request = pb.GenerateRequest(
        model=ref,
        text="hello mast",
        sampling=pb.Sampling(max_tokens=5, temperature=0),
    )
    async with connect(generator.target, services=_SERVICES, token=generator.use_token) as channel:
        stub = rpc.GeneratorServiceStub(channel)
        call = stub.Generate(request, timeout=60, metadata=[("traceparent", header(trace))])
        final = [response async for response in call][-1].final

    def ours(name: str, kind: str = "INTERNAL") -> list:
        return [span for span in collector.named(name, kind) if span.trace_id.hex() == trace]

    method = "tuneproof.generator.v1.GeneratorService/Generate"
    await arrived(lambda: bool(ours(method, "SERVER")))
    (served,), (generate,) = ours(method, "SERVER"), ours("generate")
    assert served.parent_span_id.hex() == _PARENT
    assert generate.parent_span_id == served.span_id
    told = attributes_of(generate)
    assert told["tuneproof.adapter"] == ref
    assert told["gen_ai.usage.input_tokens"] == final.usage.prompt_tokens > 0
    assert told["gen_ai.usage.output_tokens"] == final.usage.completion_tokens > 0
    assert_engine_stages(collector, generate.span_id)
    after = await tokens(generator, ref)
    assert after["prompt"] - before.get("prompt", 0) == final.usage.prompt_tokens
    assert after["completion"] - before.get("completion", 0) == final.usage.completion_tokens


@pytest.mark.parametrize(("count", "stream"), [(1, False), (3, False), (1, True)])
async def test_the_openai_door_counts_and_traces_alike(
    generator, lab, collector: Collector, count: int, stream: bool
) -> None:
    ref, trace = lab.refs["one"], f"{count}{int(stream)}f7651916cd43dd8448eb211c80319d"
    await ready(generator, ref)
    before = await settled_tokens(generator, ref)
    asked = {
        "model": ref,
        "messages": [{"role": "user", "content": "hello mast"}],
        "max_tokens": 6,
        "n": count,
        "extra_headers": {"traceparent": header(trace)},
    }
    async with openai.AsyncOpenAI(
        base_url=generator.openai_url, api_key=generator.use_token, max_retries=0
    ) as client:
        if stream:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
            chunks = [each async for each in await client.chat.completions.create(**asked)]
            usage = chunks[-1].usage
        else:
            usage = (await client.chat.completions.create(**asked)).usage

    def found() -> list:
        return [span for span in collector.named("generate") if span.trace_id.hex() == trace]

    await arrived(lambda: bool(found()))
    (generate,) = found()
    assert generate.parent_span_id.hex() == _PARENT
    told = attributes_of(generate)
    assert told["tuneproof.door"] == "openai"
    assert told["gen_ai.usage.output_tokens"] == usage.completion_tokens > 0
    assert_engine_stages(collector, generate.span_id)
    after = await tokens(generator, ref)
    assert after["prompt"] - before.get("prompt", 0) == usage.prompt_tokens
    assert after["completion"] - before.get("completion", 0) == usage.completion_tokens


async def test_loading_is_a_part_of_the_call_that_declared_it(
    generator, lab, collector: Collector
) -> None:
    ref = lab.refs["one"]
    await ready(generator, ref)

    def loads() -> list:
        return [
            span
            for span in collector.named("load adapter")
            if attributes_of(span)["tuneproof.adapter"] == ref
        ]

    await arrived(lambda: bool(loads()))
    load = loads()[0]
    for stage in ("fetch", "verify", "load", "warm"):
        assert any(span.parent_span_id == load.span_id for span in collector.named(stage))
    declared = collector.named("tuneproof.generator.v1.AdapterService/DeclareAdapter", "SERVER")
    assert load.parent_span_id in {span.span_id for span in declared}
