"""The engine's capacity: who holds it, who is evicted for whom, and where the weights are."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from tuneproof.adapters import Registry, identify_base
from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as rpc
from tuneproof.servicekit.client import connect
from tuneproof.servicekit.errors import Overloaded, Unavailable
from tuneproof_generator.adapters.capacity import FRESH_SECONDS
from tuneproof_generator.adapters.lifecycle import AdapterState
from tuneproof_generator.engine.residency import Residency
from tuneproof_generator.pool.alias import Target

from .fleet import MovedClock, member
from .perilous import Faults, Replica, ref

pytestmark = pytest.mark.timeout(20)

A, B, C, D, E = (ref(name) for name in "abcde")


async def _full(replica: Replica) -> None:
    """Declares A and B, asks both, A last; time goes by."""
    for wanted in (A, B):
        assert await replica.declare(wanted) is AdapterState.READY
    for wanted in (B, A):
        await replica.ask(str(wanted))
        await asyncio.sleep(1)


def test_a_refusal_names_the_limit_and_the_holders(loop, replica):
    async def scene():
        await replica.declare(A, required=True)
        await replica.declare(B)
        with pytest.raises(Overloaded) as refused:
            await replica.pool.declare(C, required=False, request_id="")
        assert refused.value.reason == "NO_ADAPTER_CAPACITY"
        assert f"no capacity for {C}: this replica holds 2 adapters at most (max_cpu_loras)" in str(
            refused.value
        )
        assert f"{A} (required), {B} (new and not used yet)" in str(refused.value)
        assert replica.declared() == {str(A), str(B)}

    loop.run_until_complete(scene())


def test_the_longest_idle_is_evicted_for_a_new_one(loop, replica):
    async def scene():
        await _full(replica)
        assert await replica.declare(C, evict=True) is AdapterState.READY
        assert replica.declared() == {str(A), str(C)}
        assert await replica.ask(str(C)) == ("c", str(C))
        assert replica.files() == {A.hex, C.hex}

    loop.run_until_complete(scene())


@pytest.mark.parametrize("why", ["required", "aliased", "running", "new"])
def test_who_must_stay_is_not_evicted(loop, replica, why):
    async def scene():
        await _full(replica)
        match why:
            case "required":
                await replica.pool.declare(B, required=True, request_id="")
            case "aliased":
                await replica.pool.routes.set("live", Target(B), expected_ref="")
            case "running":
                replica.engine.go.clear()
                running = asyncio.create_task(replica.ask(str(B)))
                await asyncio.sleep(1)
            case "new":
                await replica.pool.remove(B)
                await replica.declare(B)
        assert await replica.declare(C, evict=True) is AdapterState.READY
        assert replica.declared() == {str(B), str(C)}
        if why == "running":
            replica.engine.go.set()
            assert await running == ("b", str(B))

    loop.run_until_complete(scene())


def test_one_that_was_never_asked_is_idle_after_a_while(loop, replica):
    async def scene():
        await replica.declare(A, required=True)
        await replica.declare(B)
        with pytest.raises(Overloaded, match=r"b@\S+ \(new and not used yet\); none of them may"):
            await replica.pool.declare(C, required=False, request_id="", evict=True)
        await asyncio.sleep(FRESH_SECONDS)
        assert await replica.declare(C, evict=True) is AdapterState.READY

    loop.run_until_complete(scene())


def test_nothing_is_evicted_for_an_adapter_that_cannot_be_served(loop, replica):
    async def scene():
        await _full(replica)
        replica.faults.unfit.add(C)
        assert await replica.declare(C, evict=True) is AdapterState.FAILED
        assert {str(A), str(B)} < replica.declared()
        for wanted in (A, B):
            assert (await replica.ask(str(wanted)))[1] == str(wanted)

    loop.run_until_complete(scene())


def test_declarations_at_once_evict_one_each_and_no_more_than_may_go(loop, replica):
    async def scene():
        await _full(replica)
        done = await asyncio.gather(
            *(
                replica.pool.declare(wanted, required=False, request_id="", evict=True)
                for wanted in (C, C, D, E, C)
            ),
            return_exceptions=True,
        )
        assert [isinstance(one, Overloaded) for one in done] == [False, False, False, True, False]
        assert await replica.settled(C) is AdapterState.READY
        assert await replica.settled(D) is AdapterState.READY
        assert replica.declared() == {str(C), str(D)}
        assert replica.engine.loads.count(str(C)) == 1

    loop.run_until_complete(scene())


def test_one_that_is_leaving_anyway_spares_another(loop, replica):
    async def scene():
        await _full(replica)
        replica.engine.go.clear()
        running = asyncio.create_task(replica.ask(str(A)))
        await asyncio.sleep(1)
        removal = asyncio.create_task(replica.pool.remove(A))
        await asyncio.sleep(1)
        await replica.pool.declare(C, required=False, request_id="", evict=True)
        await asyncio.sleep(1)
        assert replica.pool.views.get(str(C)).record.state is not AdapterState.READY
        replica.engine.go.set()
        await asyncio.gather(running, removal)
        assert await replica.settled(C) is AdapterState.READY
        assert replica.declared() == {str(B), str(C)}

    loop.run_until_complete(scene())


def test_one_that_is_asked_at_the_last_moment_ends_its_answer_first(loop, replica):
    async def scene():
        await _full(replica)
        replica.faults.is_slow = True
        await replica.pool.declare(C, required=False, request_id="", evict=True)
        await asyncio.sleep(1)
        replica.engine.go.clear()
        running = [asyncio.create_task(replica.ask(str(one))) for one in (A, B)]
        replica.faults.is_slow = False
        assert await replica.settled(C) is AdapterState.FAILED
        assert "1 requests running" in replica.pool.views.get(str(C)).record.reason
        replica.engine.go.set()
        await asyncio.gather(*running)
        await replica.pool.remove(A)
        await replica.pool.reconciler.reconcile()
        assert await replica.settled(C) is AdapterState.READY

    loop.run_until_complete(scene())


def test_one_whose_requests_do_not_end_keeps_its_capacity_until_they_have(loop, replica):
    async def scene():
        await _full(replica)
        replica.engine.go.clear()
        abort, replica.engine.abort = replica.engine.abort, _nothing
        running = asyncio.create_task(replica.ask(str(A)))
        await asyncio.sleep(1)
        with pytest.raises(Unavailable, match="do not end 10 s after they were aborted"):
            await replica.pool.remove(A, 1)
        await replica.pool.reconciler.reconcile()
        assert replica.pool.views.get(str(A)).record.state is AdapterState.DRAINING
        with pytest.raises(Overloaded, match=r"a@\S+ \(DRAINING\)"):
            await replica.pool.declare(C, required=False, request_id="")
        await asyncio.sleep(60)
        replica.engine.abort = abort
        replica.engine.go.set()
        assert await running == ("a", str(A))
        await replica.pool.reconciler.reconcile()
        await asyncio.sleep(1)
        assert {view.record.ref for view in replica.pool.views.list()} == {str(B)}
        assert await replica.declare(C) is AdapterState.READY

    loop.run_until_complete(scene())


async def _nothing(request_id: str) -> None:
    pass


def test_what_another_replica_declared_beyond_the_capacity_waits_for_it(loop, replica, tmp_path):
    async def scene():
        large = Replica(tmp_path, Faults(), clock=loop.clock, capacity=3, cache="large")
        await large.pool.reconciler.reconcile()
        for wanted in (C, B, A):
            assert await large.declare(wanted) is AdapterState.READY
            await asyncio.sleep(1)
        await replica.pool.reconciler.reconcile()
        assert await replica.settled(C) is AdapterState.READY
        assert await replica.settled(A) is AdapterState.FAILED
        assert "tried again when there is capacity" in replica.pool.views.get(str(A)).record.reason
        await large.pool.remove(C)
        await replica.pool.reconciler.reconcile()
        await asyncio.sleep(1)
        await replica.pool.reconciler.reconcile()
        assert await replica.settled(A) is AdapterState.READY
        await large.pool.close()

    loop.run_until_complete(scene())


def test_what_was_removed_elsewhere_is_declared_again(loop, replica, tmp_path):
    async def scene():
        other = Replica(tmp_path, Faults(), clock=loop.clock, cache="other")
        await replica.declare(A)
        await other.pool.reconciler.reconcile()
        await other.pool.remove(A)
        assert replica.pool.views.get(str(A)).record.state is AdapterState.READY
        await replica.declare(A)
        await replica.pool.reconciler.reconcile()
        assert replica.declared() == {str(A)}
        assert (await replica.ask(str(A)))[1] == str(A)
        await other.pool.close()

    loop.run_until_complete(scene())


def test_use_and_residency_are_told(loop, replica):
    async def scene():
        await replica.declare(A)
        await replica.declare(B)
        assert replica.pool.views.get(str(A)).usage.last_used is None
        replica.engine.go.clear()
        running = asyncio.create_task(replica.ask(str(A)))
        await asyncio.sleep(1)
        assert replica.pool.views.get(str(A)).usage.running == 1
        replica.engine.go.set()
        await running
        assert replica.pool.views.get(str(A)).usage.running == 0
        assert replica.pool.views.get(str(A)).usage.last_used == loop.clock()
        where = await replica.pool.views.residency()
        assert where == {str(A): Residency.SLOT, str(B): Residency.HOST}

        async def silent():
            await asyncio.sleep(60)

        replica.engine.workers = silent
        before = loop.time()
        assert set((await replica.pool.views.residency()).values()) == {Residency.UNKNOWN}
        assert loop.time() - before < 10

    loop.run_until_complete(scene())


def test_nothing_is_declared_before_the_declared_set_is_known(loop, tmp_path):
    async def scene():
        early = Replica(tmp_path, Faults(), clock=loop.clock)
        with pytest.raises(Unavailable, match="not read yet"):
            await early.pool.declare(A, required=False, request_id="")

    loop.run_until_complete(scene())


async def _empty(adapters) -> None:
    """Takes away what other tests left."""
    for alias in (await adapters.ListAliases(pb.ListAliasesRequest())).aliases:
        await adapters.SetAlias(
            pb.SetAliasRequest(alias=alias.name, expected_ref=alias.ref, force=True)
        )
    for one in (await adapters.ListAdapters(pb.ListAdaptersRequest())).adapters:
        await adapters.RemoveAdapter(pb.RemoveAdapterRequest(ref=one.ref))


@pytest.mark.engine
@pytest.mark.timeout(360)
async def test_the_real_engine_tells_where_weights_are_and_loses_the_longest_idle(generator, lab):
    again = Registry(str(lab.artifacts)).commit(
        lab.peft["one"], name="again", base=identify_base(lab.base), provenance={}
    )
    services = list(pb.DESCRIPTOR.services_by_name.values())
    async with connect(generator.target, services=services, token=generator.manage_token) as to:
        adapters, ask = rpc.AdapterServiceStub(to), rpc.GeneratorServiceStub(to)

        async def told() -> dict[str, pb.Adapter]:
            reply = await adapters.ListAdapters(pb.ListAdaptersRequest())
            return {one.ref: one for one in reply.adapters}

        async def use(name: str) -> None:
            request = pb.GenerateRequest(model=lab.refs[name], text="who?")
            request.sampling.max_tokens = 2
            async for _ in ask.Generate(request, timeout=60):
                pass

        async def ready(ref: str) -> None:
            async for change in adapters.WatchAdapters(
                pb.WatchAdaptersRequest(refs=[ref]), timeout=60
            ):
                assert change.adapter.state != pb.ADAPTER_STATE_FAILED, change.adapter.reason
                if change.adapter.state == pb.ADAPTER_STATE_READY:
                    return

        await _empty(adapters)
        for name in ("one", "two", "late", "brief"):
            await adapters.DeclareAdapter(pb.DeclareAdapterRequest(ref=lab.refs[name]))
            await ready(lab.refs[name])
        for name in ("late", "brief", "two", "one"):
            await use(name)
        found = await told()
        slots = {name: found[lab.refs[name]].residency for name in ("one", "two", "late", "brief")}
        assert slots == {
            "one": pb.RESIDENCY_SLOT,
            "two": pb.RESIDENCY_SLOT,
            "late": pb.RESIDENCY_HOST,
            "brief": pb.RESIDENCY_HOST,
        }
        assert all(one.HasField("last_used_time") for one in found.values())

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await adapters.DeclareAdapter(pb.DeclareAdapterRequest(ref=str(again)))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "4 adapters at most (max_cpu_loras)" in refused.value.details()
        assert lab.refs["late"] in refused.value.details()
        await adapters.DeclareAdapter(
            pb.DeclareAdapterRequest(ref=str(again), on_full=pb.ON_FULL_EVICT_IDLE)
        )
        await ready(str(again))
        assert set(await told()) == {str(again), *(lab.refs[n] for n in ("one", "two", "brief"))}
        await adapters.RemoveAdapter(pb.RemoveAdapterRequest(ref=str(again)))


async def test_what_another_replica_uses_is_not_idle(tmp_path):
    clock = MovedClock()
    async with member(tmp_path, "one", clock) as one, member(tmp_path, "two", clock) as two:
        await one.declare(A, B)
        await two.follow(A, B)
        for user, wanted in ((one, B), (one, A), (two, B)):
            await user.served_by(str(wanted))
        await two.tell()
        await one.pool.reconciler.reconcile()
        await one.pool.declare(C, required=False, request_id="", evict=True)
        await one.ready(C)
        assert [view.record.ref for view in one.pool.views.list()] == [str(B), str(C)]
