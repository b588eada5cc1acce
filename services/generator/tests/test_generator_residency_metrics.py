"""The residency metrics are what the workers hold: in a real engine behind mTLS, under swaps."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import httpx
import prometheus_client
import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as rpc
from tuneproof.servicekit.client import connect
from tuneproof.servicekit.testing import MountedSecret, certificate_files
from tuneproof.servicekit.tls import ClientTls
from tuneproof_generator.engine.protocol import WorkerAdapters
from tuneproof_generator.pool.residency_metrics import ResidencyMetrics, Residents, registered

pytestmark = pytest.mark.timeout(360)

BASE = {"model_name": "tiny-residency", "engine": "0"}
LEVELS = {pb.RESIDENCY_SLOT: "gpu", pb.RESIDENCY_HOST: "cpu"}


def value(name: str) -> float | None:
    return prometheus_client.REGISTRY.get_sample_value(name, BASE)


def loaded() -> set[tuple[str, ...]]:
    return {
        tuple(sample.labels[name] for name in ("rank", "adapter_name", "level", "pinned"))
        for family in prometheus_client.REGISTRY.collect()
        if family.name == "vllm:lora_adapter_loaded"
        for sample in family.samples
    }


async def test_each_worker_tells_what_it_holds_and_silence_keeps_what_was_told_last() -> None:
    ranks = [
        WorkerAdapters(frozenset({1, 2}), frozenset({1, 2}), frozenset({2})),
        WorkerAdapters(frozenset({1, 2}), frozenset({2})),
    ]
    told = [Residents(ranks, {1: "one", 2: "two"}), Residents((), {})]

    async def ask() -> Residents:
        return told[0]

    loop = asyncio.get_running_loop()
    with registered(ResidencyMetrics(ask, loop, model_name=BASE["model_name"], slots=2)):
        for _ in told:
            assert await asyncio.to_thread(loaded) == {
                ("0", "one", "gpu", "false"),
                ("0", "two", "gpu", "true"),
                ("1", "one", "cpu", "false"),
                ("1", "two", "gpu", "false"),
            }
            assert await asyncio.to_thread(value, "vllm:num_gpu_loaded_lora_adapters") == 1
            assert await asyncio.to_thread(value, "vllm:max_gpu_lora_adapters") == 2
            told.reverse()
    assert await asyncio.to_thread(value, "vllm:max_gpu_lora_adapters") is None


async def test_an_engine_that_has_them_keeps_its_own() -> None:
    async def ask() -> Residents:
        raise AssertionError

    theirs = prometheus_client.Gauge("vllm:max_gpu_lora_adapters", "Its own.", [*BASE])
    try:
        theirs.labels(**BASE).set(7)
        loop = asyncio.get_running_loop()
        with registered(ResidencyMetrics(ask, loop, model_name=BASE["model_name"], slots=2)):
            assert value("vllm:max_gpu_lora_adapters") == 7
    finally:
        prometheus_client.REGISTRY.unregister(theirs)


@dataclass
class Peer:
    """Calls a generator over mTLS, by both doors and its page of metrics."""

    service: Any
    http: httpx.AsyncClient
    generator: rpc.GeneratorServiceStub
    adapters: rpc.AdapterServiceStub

    async def scraped(self) -> tuple[dict[str, str], dict[str, float]]:
        """Levels by reference, and the other values by name."""
        levels: dict[str, str] = {}
        values = {}
        text = (await self.http.get(self.service.addresses["metrics"])).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = dict(sample.labels)
                if sample.name == "vllm:lora_adapter_loaded":
                    ref, level = labels.pop("adapter_name"), labels.pop("level")
                    assert labels == {**BASE, "rank": "0", "pinned": "false"}
                    assert ref not in levels
                    levels[ref] = level
                elif "lora_adapter" in sample.name and labels == BASE:
                    values[sample.name] = sample.value
        return levels, values

    async def held(self) -> dict[str, str]:
        reply = await self.adapters.ListAdapters(pb.ListAdaptersRequest())
        return {one.ref: LEVELS[one.residency] for one in reply.adapters}

    async def use(self, ref: str, tokens: int = 2) -> None:
        request = pb.GenerateRequest(model=ref, text="who?")
        request.sampling.max_tokens = tokens
        async for _ in self.generator.Generate(request, timeout=60):
            pass

    async def declare(self, ref: str) -> None:
        await self.adapters.DeclareAdapter(pb.DeclareAdapterRequest(ref=ref))
        request = pb.WatchAdaptersRequest(refs=[ref])
        async for change in self.adapters.WatchAdapters(request, timeout=60):
            assert change.adapter.state != pb.ADAPTER_STATE_FAILED, change.adapter.reason
            if change.adapter.state == pb.ADAPTER_STATE_READY:
                return

    async def remove(self, ref: str) -> None:
        await self.adapters.RemoveAdapter(pb.RemoveAdapterRequest(ref=ref))


@pytest.fixture(scope="module")
def encrypted(make_generator, lab, tmp_path_factory) -> Iterator[tuple[Any, ClientTls]]:
    folder, ca = tmp_path_factory.mktemp("encrypted"), trustme.CA()
    for name in ("server", "client"):
        MountedSecret(folder / name, certificate_files(ca, "127.0.0.1"))
    service = make_generator(**asdict(lab))
    service.folder = folder / "service"
    # A pool of its own in the lab's store.
    service.flags |= {"tls-dir": folder / "server", "model-name": BASE["model_name"]}
    service.environment["TUNEPROOF_GENERATOR_TLS_CLIENT_CERTIFICATES"] = "true"
    service.start()
    yield service, ClientTls(folder / "client")
    assert service.end(signal.SIGTERM) == 0


@pytest.fixture
async def peer(encrypted) -> AsyncIterator[Peer]:
    service, tls = encrypted
    services = list(pb.DESCRIPTOR.services_by_name.values())
    token = service.manage_token
    async with (
        httpx.AsyncClient(verify=tls.context()) as http,
        connect(service.target, services=services, token=token, tls=tls) as to,
    ):
        yield Peer(service, http, rpc.GeneratorServiceStub(to), rpc.AdapterServiceStub(to))


async def test_they_equal_what_the_worker_holds_while_adapters_change_slots(peer, lab) -> None:
    refs = {name: lab.refs[name] for name in ("one", "two", "late", "brief")}
    assert (await peer.scraped())[0] == {}
    for ref in refs.values():
        await peer.declare(ref)
    # The two that were used last are in the two slots.
    for names in (("one", "two"), ("two", "late"), ("brief", "one"), ("late", "late", "brief")):
        for name in names:
            await peer.use(refs[name])
        levels, values = await peer.scraped()
        assert levels == await peer.held()
        in_slots = {ref for ref, level in levels.items() if level == "gpu"}
        assert in_slots == {refs[name] for name in names}
        assert values["vllm:num_gpu_loaded_lora_adapters"] == 2
        assert values["vllm:max_gpu_lora_adapters"] == 2
    assert values["vllm:lora_adapter_load_seconds_count"] == 4
    assert values["vllm:lora_adapter_load_seconds_sum"] > 0

    load = [asyncio.create_task(peer.use(ref, 60)) for ref in refs.values() for _ in range(3)]
    while not all(task.done() for task in load):
        levels, _ = await peer.scraped()
        assert set(levels) == set(refs.values())
        assert list(levels.values()).count("gpu") <= 2
    await asyncio.gather(*load)
    assert (await peer.scraped())[0] == await peer.held()

    await peer.remove(refs["late"])
    assert set((await peer.scraped())[0]) == set(refs.values()) - {refs["late"]}


async def test_both_doors_answer_over_mtls_and_refuse_who_shows_nothing(peer) -> None:
    header = {"authorization": f"Bearer {peer.service.use_token}"}
    url = f"{peer.service.openai_url}/models"
    assert url.startswith("https://")
    listed = await peer.http.get(url, headers=header)
    assert BASE["model_name"] in [one["id"] for one in listed.json()["data"]]
    assert (await peer.http.get(url)).status_code == httpx.codes.UNAUTHORIZED
    async with httpx.AsyncClient(verify=False) as nobody:
        for where in (url, peer.service.addresses["metrics"]):
            with pytest.raises((httpx.TransportError, ssl.SSLError)):
                await nobody.get(where, headers=header)
