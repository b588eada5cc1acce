"""Adapters and aliases by the generator's client, against a small generator in this process."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial

import grpc
import pytest

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as stubs
from tuneproof.sdk import AdapterInfo, GeneratorClient, ReplicaInfo
from tuneproof.sdk.readiness import until_ready
from tuneproof.servicekit.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Unavailable,
    WrongState,
)
from tuneproof.servicekit.paging import page
from tuneproof.servicekit.server import Service
from tuneproof.servicekit.testing import serving

pytestmark = [pytest.mark.long, pytest.mark.timeout(20)]

REF = "short@sha256:" + "a" * 64
_STATES = {
    "pending": pb.ADAPTER_STATE_PENDING,
    "loading": pb.ADAPTER_STATE_LOADING,
    "ready": pb.ADAPTER_STATE_READY,
    "failed": pb.ADAPTER_STATE_FAILED,
}


class _Adapters(stubs.AdapterServiceServicer):
    """Goes through a script of states, one with each look; the last one stays."""

    def __init__(self) -> None:
        self.script: list[pb.Adapter] = []
        self.looks = 0
        self.watches_fail = 0
        self.unknown = 0
        self.removed: list[pb.RemoveAdapterRequest] = []
        self.aliases: dict[str, pb.Alias] = {}
        self.versions: list[pb.Alias] = []
        self.on_full = None

    def _look(self) -> pb.Adapter:
        if not self.script:
            raise NotFound("no such adapter; declare it")
        self.looks += 1
        return self.script[min(self.looks, len(self.script)) - 1]

    async def DeclareAdapter(self, request, context):
        adapter = pb.Adapter(ref=request.ref, state=pb.ADAPTER_STATE_PENDING)
        adapter.required = request.required
        self.on_full = request.on_full
        return pb.DeclareAdapterResponse(adapter=adapter)

    async def GetAdapter(self, request, context):
        if self.unknown:
            self.unknown -= 1
            raise NotFound("not declared")
        return pb.GetAdapterResponse(adapter=self._look())

    async def WatchAdapters(self, request, context):
        if self.watches_fail:
            self.watches_fail -= 1
            await context.abort(grpc.StatusCode.CANCELLED, "stopping")
        while self.looks < len(self.script):
            adapter = self._look()
            gone = adapter.state == pb.ADAPTER_STATE_UNSPECIFIED
            yield pb.WatchAdaptersResponse(adapter=adapter, removed=gone)
        await asyncio.Event().wait()

    async def ListAdapters(self, request, context):
        some, token = page(self.script, 1, request.page_token, lambda adapter: adapter.ref)
        return pb.ListAdaptersResponse(adapters=some, next_page_token=token)

    async def RemoveAdapter(self, request, context):
        self.removed.append(request)
        return pb.RemoveAdapterResponse()

    async def SetAlias(self, request, context):
        now = self.aliases.get(request.alias)
        if (now.ref if now else "") != request.expected_ref:
            raise WrongState(f"alias {request.alias} points to {now.ref if now else 'nothing'}")
        last = now.version if now else 0
        if request.HasField("expected_version") and request.expected_version != last:
            raise WrongState(f"alias {request.alias} is at version {last}")
        alias = pb.Alias(
            name=request.alias,
            ref=request.ref,
            version=last + 1,
            reason=request.reason,
            set_by="gate",
            canary_ref=request.canary_ref,
            canary_percent=request.canary_percent,
        )
        self.aliases[request.alias] = alias
        self.versions.insert(0, alias)
        return pb.SetAliasResponse(alias=alias)

    async def ListAliases(self, request, context):
        return pb.ListAliasesResponse(aliases=self.aliases.values())

    async def ListAliasVersions(self, request, context):
        own = [one for one in self.versions if one.name == request.alias]
        if not own:
            raise NotFound(f"no alias {request.alias}")
        after = int(request.page_token or 0)
        token = str(after + 1) if after + 1 < len(own) else ""
        return pb.ListAliasVersionsResponse(versions=[own[after]], next_page_token=token)


def _adapter(state: str, reason: str = "", **replicas: str) -> pb.Adapter:
    return pb.Adapter(
        ref=REF,
        state=_STATES[state],
        reason=reason,
        replicas=[pb.ReplicaStatus(replica=r, state=_STATES[s]) for r, s in replicas.items()],
    )


@pytest.fixture
def adapters() -> _Adapters:
    return _Adapters()


@pytest.fixture
async def client(adapters):
    async def ready() -> None: ...

    def register(server):
        stubs.add_AdapterServiceServicer_to_server(adapters, server)

    service = Service(register, [pb.DESCRIPTOR.services_by_name["AdapterService"]], ready)
    async with serving(service) as target, GeneratorClient(target) as found:
        yield found


async def test_a_declared_adapter_is_told(client):
    adapter = await client.declare(REF, required=True)
    assert (adapter.ref, adapter.state, adapter.required) == (REF, "pending", True)


async def test_what_happens_without_a_place_is_the_callers_choice(client, adapters):
    for chosen, wire in (("refuse", pb.ON_FULL_REFUSE), ("evict_idle", pb.ON_FULL_EVICT_IDLE)):
        await client.declare(REF, on_full=chosen)
        assert adapters.on_full == wire
    with pytest.raises(InvalidInput, match="'guess' is not known; known: refuse, evict_idle"):
        await client.declare(REF, on_full="guess")


async def test_an_adapter_is_told_whole(client, adapters):
    adapter = _adapter("ready", r1="ready")
    adapter.running_requests, adapter.residency = 2, pb.RESIDENCY_HOST
    adapter.last_used_time.FromDatetime(datetime(2026, 1, 3, tzinfo=UTC))
    adapter.replicas[0].lease_expire_time.FromDatetime(datetime(2026, 1, 4, tzinfo=UTC))
    adapters.script = [adapter, _adapter("ready")]
    full, bare = await client.adapter(REF), await client.adapter(REF)
    assert (full.running_requests, full.residency) == (2, "host")
    assert full.last_used_time == datetime(2026, 1, 3, tzinfo=UTC)
    assert full.replicas["r1"].lease_expire_time == datetime(2026, 1, 4, tzinfo=UTC)
    assert (bare.last_used_time, bare.residency, bare.running_requests) == (None, "", 0)


async def test_a_watch_tells_changes_and_what_is_gone(client, adapters):
    adapters.script = [_adapter("loading"), _adapter("ready"), pb.Adapter(ref=REF)]
    watch = client.watch()
    assert [(await anext(watch)).state for _ in range(3)] == ["loading", "ready", "removed"]
    await watch.aclose()


async def test_waiting_tells_each_change_once_and_ends_when_ready(client, adapters):
    states = ("pending", "pending", "loading", "ready")
    adapters.script = [_adapter(state) for state in states]
    told: list[AdapterInfo] = []
    adapter = await client.wait_ready(REF, timeout=5, on_change=told.append)
    assert adapter.ready
    assert [one.state for one in told] == ["pending", "loading", "ready"]


async def test_ready_means_on_every_live_replica(client, adapters):
    adapters.script = [
        _adapter("ready", r1="ready", r2="loading"),
        _adapter("ready", r1="ready", r2="loading"),
        _adapter("ready", r1="ready", r2="ready"),
    ]
    adapter = await client.wait_ready(REF, timeout=5)
    assert {name: one.state for name, one in adapter.replicas.items()} == {
        "r1": "ready",
        "r2": "ready",
    }


async def test_a_replica_that_keeps_failing_is_not_waited_for():
    bad = ReplicaInfo("failed", "NaN in a tensor", None)
    adapter = AdapterInfo(REF, "ready", replicas={"r1": ReplicaInfo("ready", "", None), "r2": bad})

    async def looks():
        yield adapter

    with pytest.raises(WrongState, match=r"NaN in a tensor \(on r2\)"):
        await until_ready(REF, looks, timeout=5, away_seconds=5, on_change=None, stale_seconds=0.1)


async def test_another_replica_may_not_know_yet_what_was_just_declared(client, adapters):
    adapters.script, adapters.unknown = [_adapter("ready")], 2
    await client.declare(REF)
    assert (await client.wait_ready(REF, timeout=5)).ready
    adapters.unknown = 1
    client.unknown_seconds = 0
    with pytest.raises(NotFound, match="not declared"):
        await client.wait_ready(REF, timeout=5)


async def test_a_failure_from_before_the_declaration_passes(client, adapters):
    adapters.script = [
        _adapter("failed", "too old", r1="loading", r2="failed"),
        _adapter("loading", r1="loading", r2="loading"),
        _adapter("ready", r1="ready", r2="ready"),
    ]
    assert (await client.wait_ready(REF, timeout=5)).ready


async def test_a_failed_adapter_is_an_error_with_its_reason(client, adapters):
    adapters.script = [_adapter("loading"), _adapter("failed", "rank 64 exceeds 16")]
    told: list[str] = []
    with pytest.raises(WrongState, match="rank 64 exceeds 16"):
        await client.wait_ready(REF, timeout=5, on_change=lambda one: told.append(one.state))
    assert told == ["loading", "failed"]


async def test_a_removed_adapter_is_not_waited_for(client, adapters):
    adapters.script = [_adapter("loading"), pb.Adapter(ref=REF)]
    with pytest.raises(NotFound, match="was removed"):
        await client.wait_ready(REF, timeout=5)
    adapters.script = []
    with pytest.raises(NotFound, match="declare it"):
        await client.wait_ready(REF, timeout=5)


async def test_waiting_outlives_a_restart_of_the_service(client, adapters):
    adapters.script = [_adapter("loading"), _adapter("loading"), _adapter("ready")]
    adapters.watches_fail = 1
    assert (await client.wait_ready(REF, timeout=5)).ready


async def test_waiting_ends_with_the_last_state(client, adapters):
    adapters.script = [_adapter("loading")]
    with pytest.raises(DeadlineExceeded, match="it is loading"):
        await client.wait_ready(REF, timeout=0.2)


async def test_a_service_that_is_away_is_told_as_such():
    async with GeneratorClient("127.0.0.1:1") as client:
        with pytest.raises(Unavailable, match=r"the generator at 127\.0\.0\.1:1 cannot be reached"):
            await client.wait_ready(REF, timeout=3)


async def test_a_service_may_be_away_for_so_long_and_no_longer():
    async with GeneratorClient("127.0.0.1:1") as client:
        with pytest.raises(Unavailable):
            await client.wait_ready(REF, timeout=600, away_seconds=0.5)


async def test_adapters_are_listed_and_removed(client, adapters):
    adapters.script = [_adapter("ready"), pb.Adapter(ref="z@sha256:1", aliases=["live"])]
    assert [one.aliases for one in await client.adapters()] == [(), ("live",)]
    await client.remove(REF, drain_seconds=1.5)
    await client.remove(REF)
    first, second = adapters.removed
    assert first.drain_timeout.ToTimedelta().total_seconds() == 1.5
    assert not second.HasField("drain_timeout")


async def test_an_alias_moves_only_from_where_it_is_expected(client, adapters):
    alias = await client.set_alias("live", REF, reason="gate passed")
    assert (alias.ref, alias.version, alias.reason) == (REF, 1, "gate passed")
    with pytest.raises(WrongState, match="points to short"):
        await client.set_alias("live", "z@sha256:1")
    assert (await client.set_alias("live", "z@sha256:1", expected_ref=REF)).version == 2
    assert [(one.name, one.ref) for one in await client.aliases()] == [("live", "z@sha256:1")]


async def test_of_two_canaries_decided_on_one_version_one_is_set(client):
    canary = partial(client.set_alias, "live", REF, canary_ref="z@sha256:1")
    await client.set_alias("live", REF, expected_version=0)
    await canary(expected_ref=REF, expected_version=1, canary_percent=5)
    with pytest.raises(WrongState, match="is at version 2"):
        await canary(expected_ref=REF, expected_version=1, canary_percent=10)
    with pytest.raises(WrongState, match="is at version 2"):
        await canary(expected_ref=REF, expected_version=0, canary_percent=10)
    # Who names no version overwrites, as before.
    assert (await canary(expected_ref=REF, canary_percent=10)).version == 3


async def test_an_alias_has_a_history_with_its_canaries(client):
    other = "z@sha256:1"
    await client.set_alias("live", REF)
    await client.set_alias(
        "live", REF, expected_ref=REF, canary_ref=other, canary_percent=5, reason="try"
    )
    last, first = await client.alias_versions("live")
    assert last.target == (REF, other, 5)
    assert (last.version, last.reason, last.set_by) == (2, "try", "gate")
    assert first.target == (REF, "", 0)
    with pytest.raises(NotFound, match="no alias nobody"):
        await client.alias_versions("nobody")
