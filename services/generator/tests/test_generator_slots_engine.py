"""More adapters in use than the real engine has slots: none waits without end, or is kept."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import grpc
import pytest

from tuneproof.adapters import Registry, identify_base
from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as rpc
from tuneproof.servicekit.client import connect

pytestmark = [pytest.mark.engine, pytest.mark.timeout(360)]


@pytest.fixture
async def stubs(generator) -> AsyncIterator[SimpleNamespace]:
    services = list(pb.DESCRIPTOR.services_by_name.values())
    async with connect(
        generator.target, services=services, token=generator.manage_token
    ) as channel:
        yield SimpleNamespace(
            ask=rpc.GeneratorServiceStub(channel), adapters=rpc.AdapterServiceStub(channel)
        )


@pytest.fixture
async def three(stubs, lab) -> AsyncIterator[list[str]]:
    """Three adapters; the service has two slots and a capacity of four."""
    listed = await stubs.adapters.ListAdapters(pb.ListAdaptersRequest())
    before = {adapter.ref for adapter in listed.adapters}
    # A name of its own, so that no other test has declared it.
    third = Registry(str(lab.artifacts)).commit(
        lab.peft["late"], name="third", base=identify_base(lab.base), provenance={}
    )
    refs = [lab.refs["one"], lab.refs["two"], str(third)]
    for ref in refs:
        await stubs.adapters.DeclareAdapter(pb.DeclareAdapterRequest(ref=ref))
        async for response in stubs.adapters.WatchAdapters(
            pb.WatchAdaptersRequest(refs=[ref]), timeout=60
        ):
            assert response.adapter.state != pb.ADAPTER_STATE_FAILED, response.adapter.reason
            if response.adapter.state == pb.ADAPTER_STATE_READY:
                break
    yield refs
    listed = await stubs.adapters.ListAdapters(pb.ListAdaptersRequest())
    for ref in {adapter.ref for adapter in listed.adapters} - before:
        await stubs.adapters.RemoveAdapter(pb.RemoveAdapterRequest(ref=ref))


async def _ask(stubs, ref: str, tokens: int, timeout: float = 60) -> str:
    request = pb.GenerateRequest(
        model=ref, text=f"{tokens} words", sampling=pb.Sampling(max_tokens=tokens)
    )
    async for response in stubs.ask.Generate(request, timeout=timeout):
        if response.HasField("final"):
            return response.final.served_by.adapter_ref
    raise AssertionError


@asynccontextmanager
async def _busy(stubs, refs: list[str]) -> AsyncIterator[dict[str, int]]:
    """Keeps requests of each adapter under way; how many ended."""
    ended = dict.fromkeys(refs, 0)

    async def keep(ref: str, tokens: int) -> None:
        while True:
            assert await _ask(stubs, ref, tokens) == ref
            ended[ref] += 1

    tasks = [asyncio.create_task(keep(ref, tokens)) for ref in refs for tokens in (7, 11, 13, 17)]
    try:
        while not all(ended.values()):
            await asyncio.sleep(0.02)
        yield ended
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, asyncio.CancelledError), outcome


async def test_busy_adapters_give_way_and_go_on(stubs, three) -> None:
    *hot, cold = three
    async with _busy(stubs, hot) as ended:
        for _ in range(3):
            assert await _ask(stubs, cold, 4) == cold
        so_far = dict(ended)
        while any(ended[ref] == so_far[ref] for ref in hot):
            await asyncio.sleep(0.02)


async def test_a_request_that_waits_heeds_its_deadline_and_its_adapters_removal(
    stubs, three
) -> None:
    *hot, cold = three
    async with _busy(stubs, hot):
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await _ask(stubs, cold, 400, timeout=0.3)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        waiting = asyncio.create_task(_ask(stubs, cold, 400))
        running = 0
        while not running:
            found = await stubs.adapters.GetAdapter(pb.GetAdapterRequest(ref=cold))
            running = found.adapter.running_requests
        removal = pb.RemoveAdapterRequest(ref=cold)
        removal.drain_timeout.FromMilliseconds(1)
        await stubs.adapters.RemoveAdapter(removal)
        with pytest.raises(grpc.aio.AioRpcError) as removed:
            await waiting
        # The client asks again by itself; by then there is no such adapter.
        refusals = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)
        assert removed.value.code() in refusals
