"""The operator of the kind `Adapter`, on a small pool in this process, and on objects in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as stubs
from tuneproof.operator.cluster import Cluster as RealCluster
from tuneproof.operator.following import Follower
from tuneproof.operator.objects import AdapterObject
from tuneproof.sdk import GeneratorClient
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.server import Service
from tuneproof.servicekit.testing import serving

from .fake_pool import CAPACITY, Pool

pytestmark = pytest.mark.timeout(20)

A, B, C = (f"{name}@sha256:{name[0] * 64}" for name in ("a1", "b1", "c1"))
BAD = "bad@sha256:" + "d" * 64


class Cluster:
    """Objects by name, and a follower that hears of them."""

    def __init__(self, client: GeneratorClient) -> None:
        self.client = client
        self.bodies: dict[str, dict] = {}
        self.follower = Follower(client, self, seconds=0.02)
        self._version = 0
        self._looks, self._look = 0, self.follower.look
        self.follower.look = self.look  # It counts.

    async def look(self) -> None:
        await self._look()
        self._looks += 1

    async def tell(self, one, status):
        body = self.bodies[one.name]
        merged = body["status"] | status
        body["status"] = {key: value for key, value in merged.items() if value is not None}
        return AdapterObject.of(self._changed(body))

    def _changed(self, body: dict) -> dict:
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        return body

    def apply(self, name: str, **spec) -> None:
        body = self.bodies.setdefault(name, {"metadata": {}, "status": {}, "spec": {}})
        meta = body["metadata"]
        meta.setdefault("creationTimestamp", f"2026-11-01T00:00:0{len(self.bodies)}Z")
        meta.update(name=name, uid=f"uid-{name}", generation=meta.get("generation", 0) + 1)
        body["spec"] = {"pool": "generator", **spec}
        self.follower.take(AdapterObject.of(self._changed(body)))

    def delete(self, name: str) -> None:
        self.follower.drop(AdapterObject.of(self._changed(self.bodies.pop(name))), leaves=True)

    def conditions(self, name: str) -> dict[str, tuple[str, str]]:
        told = self.bodies[name]["status"].get("conditions", [])
        return {each["type"]: (each["status"], each["reason"]) for each in told}

    def said(self, name: str, kind: str) -> str:
        told = self.bodies[name]["status"]["conditions"]
        return next(each["message"] for each in told if each["type"] == kind)

    async def until(self, condition: Callable[[], bool]) -> None:
        """The test's own time limit ends it."""
        while not condition():
            await asyncio.sleep(0.005)

    async def settled(self, name: str, ready: str, aliased: str | None = None) -> None:
        """Waits for the reasons of its conditions."""
        wanted = {"Ready": ready} | ({"Aliased": aliased} if aliased else {})
        await self.until(
            lambda: {kind: why for kind, (_, why) in self.conditions(name).items()} == wanted
        )

    async def refs(self) -> set[str]:
        return {each.ref for each in await self.client.adapters()}

    async def alias(self, name: str = "live") -> tuple[str, str, int] | None:
        found = {each.name: each.target for each in await self.client.aliases()}
        return found.get(name) if found.get(name, ("",))[0] else None

    async def rounds(self, count: int = 3) -> None:
        """Waits until it has looked so many times again."""
        until = self._looks + count + 1
        await self.until(lambda: self._looks >= until)


@asynccontextmanager
async def _served() -> AsyncIterator[str]:
    pool = Pool()

    def register(server) -> None:
        stubs.add_GeneratorServiceServicer_to_server(pool, server)
        stubs.add_AdapterServiceServicer_to_server(pool, server)

    async def ready() -> None: ...

    service = Service(register, list(pb.DESCRIPTOR.services_by_name.values()), ready)
    async with serving(service) as target:
        yield target


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with _served() as target, GeneratorClient(target) as client:
        made = Cluster(client)
        following = asyncio.create_task(made.follower.run())
        try:
            yield made
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following


async def test_an_object_is_declared_then_aliased_and_says_so(cluster: Cluster) -> None:
    cluster.apply("one", ref=A, alias="live")
    await cluster.settled("one", "Ready", "Set")
    assert cluster.conditions("one") == {"Ready": ("True", "Ready"), "Aliased": ("True", "Set")}
    status = cluster.bodies["one"]["status"]
    assert (status["ready"], status["total"], status["reason"]) == (1, 1, "Ready")
    assert await cluster.alias() == (A, "", 0)
    before = status["conditions"]
    cluster.apply("one", ref=A, alias="live")
    await cluster.until(lambda: cluster.bodies["one"]["status"]["observedGeneration"] == 2)
    times = [each["lastTransitionTime"] for each in cluster.bodies["one"]["status"]["conditions"]]
    assert times == [each["lastTransitionTime"] for each in before]


async def test_what_fails_or_is_refused_says_why(cluster: Cluster) -> None:
    cluster.apply("bad", ref=BAD)
    await cluster.settled("bad", "Failed")
    assert "tensor q holds NaN" in cluster.said("bad", "Ready")
    for number in range(CAPACITY):
        cluster.apply(f"n{number}", ref=f"n{number}@sha256:{number}" + "0" * 63)
    await cluster.settled(f"n{CAPACITY - 1}", "Refused")
    assert "are held" in cluster.said(f"n{CAPACITY - 1}", "Ready")
    assert cluster.conditions(f"n{CAPACITY - 1}")["Ready"][0] == "False"
    cluster.delete("bad")  # It makes room.
    await cluster.settled(f"n{CAPACITY - 1}", "Ready")


async def test_what_is_removed_behind_its_back_stays_removed(cluster: Cluster) -> None:
    cluster.apply("one", ref=A)
    await cluster.settled("one", "Ready")
    await cluster.client.remove(A)
    await cluster.settled("one", "Removed")
    await cluster.rounds()
    assert await cluster.refs() == set()
    cluster.apply("one", ref=A, required=True)
    await cluster.settled("one", "Ready")


async def test_an_alias_moved_behind_its_back_is_moved_again_only_on_request(
    cluster: Cluster,
) -> None:
    for name, ref in (("b", B), ("c", C)):
        cluster.apply(name, ref=ref)
        await cluster.settled(name, "Ready")
    cluster.apply("one", ref=A, alias="live")
    await cluster.settled("one", "Ready", "Set")
    await cluster.client.set_alias("live", B, expected_ref=A, reason="the gate")
    await cluster.settled("one", "Ready", "Moved")
    assert "version 2 by ci: the gate" in cluster.said("one", "Aliased")
    assert cluster.bodies["one"]["status"]["reason"] == "Moved"
    cluster.apply("one", ref=A, alias="live", canary={"ref": C, "percent": 5})
    await cluster.settled("one", "Ready", "AliasElsewhere")
    await cluster.rounds()
    assert await cluster.alias() == (B, "", 0)
    cluster.apply("one", ref=A, alias="live", expectedRef=B, canary={"ref": C, "percent": 5})
    await cluster.settled("one", "Ready", "Set")
    assert await cluster.alias() == (A, C, 5)


async def test_a_canary_that_is_not_ready_is_refused(cluster: Cluster) -> None:
    cluster.apply("one", ref=A, alias="live", canary={"ref": B, "percent": 5})
    await cluster.settled("one", "Ready", "AliasRefused")
    assert f"{B} is not READY" in cluster.said("one", "Aliased")
    cluster.apply("b", ref=B)
    await cluster.settled("one", "Ready", "Set")


async def test_another_ref_takes_over_the_alias_and_the_former_goes(cluster: Cluster) -> None:
    cluster.apply("one", ref=A, alias="live")
    await cluster.settled("one", "Ready", "Set")
    cluster.apply("one", ref=B, alias="live", canary={"ref": A, "percent": 10})
    await cluster.until(lambda: cluster.bodies["one"]["status"].get("aliasGeneration") == 2)
    assert await cluster.alias() == (B, A, 10)
    assert await cluster.refs() == {A, B}
    cluster.apply("one", ref=B, alias="live")
    await cluster.until(lambda: cluster.bodies["one"]["status"]["declaredRefs"] == [B])
    assert await cluster.alias() == (B, "", 0)
    assert await cluster.refs() == {B}


async def test_of_two_objects_with_one_alias_the_older_has_it(cluster: Cluster) -> None:
    cluster.apply("older", ref=A, alias="live")
    cluster.apply("newer", ref=B, alias="live")
    await cluster.settled("newer", "Ready", "AliasConflict")
    await cluster.settled("older", "Ready", "Set")
    assert "older declares live too" in cluster.said("newer", "Aliased")
    cluster.delete("older")
    await cluster.settled("newer", "Ready", "Set")
    await cluster.rounds(2)
    history = await cluster.client.alias_versions("live")
    assert [each.ref for each in history] == [B, A]  # Nobody missed it in between.
    assert await cluster.refs() == {B}


async def test_deleting_an_object_takes_its_alias_and_its_adapter_away(cluster: Cluster) -> None:
    cluster.apply("one", ref=A, alias="live")
    cluster.apply("kept", ref=B, alias="kept", deletionPolicy="Retain")
    cluster.apply("shared", ref=C)
    cluster.apply("again", ref=C)
    await cluster.settled("one", "Ready", "Set")
    await cluster.settled("kept", "Ready", "Set")
    await cluster.settled("shared", "Ready")
    for name in ("one", "kept", "shared"):
        cluster.delete(name)
    await cluster.rounds()
    assert await cluster.refs() == {B, C}
    assert await cluster.alias() is None
    assert await cluster.alias("kept") == (B, "", 0)


async def test_deleting_does_not_take_what_others_moved_or_use(cluster: Cluster) -> None:
    for name, ref in (("one", A), ("two", B)):
        cluster.apply(name, ref=ref, alias=f"of-{name}")
        await cluster.settled(name, "Ready", "Set")
    await cluster.client.set_alias("of-one", B, expected_ref=A)
    await cluster.client.set_alias("foreign", B)
    cluster.delete("one")
    cluster.delete("two")
    await cluster.rounds()
    assert await cluster.alias("of-one") == await cluster.alias("foreign") == (B, "", 0)
    assert await cluster.alias("of-two") is None
    assert await cluster.refs() == {B}


async def test_a_pool_that_is_away_makes_ready_unknown() -> None:
    async with AsyncExitStack() as stack:
        async with _served() as target:
            alone = Cluster(await stack.enter_async_context(GeneratorClient(target)))
            alone.apply("one", ref=A, alias="live")
            await alone.look()
            assert alone.bodies["one"]["status"]["ready"] == 0
        await alone.look()
    assert alone.conditions("one") == {
        "Ready": ("Unknown", "PoolUnreachable"),
        "Aliased": ("Unknown", "PoolUnreachable"),
    }
    assert "ready" not in alone.bodies["one"]["status"]


async def test_a_late_event_does_not_bring_old_state_back(cluster: Cluster) -> None:
    cluster.apply("one", ref=A)
    (old,) = cluster.follower.objects
    cluster.apply("one", ref=B)
    cluster.follower.take(old)
    assert [one.spec.ref for one in cluster.follower.objects] == [B]


def test_without_a_pod_or_a_kubeconfig_it_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = pytest.importorskip("kubernetes.config")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(InvalidInput, match="a pod whose service account has a token, or a kubecon"):
        RealCluster("tuneproof")
