"""Aliases: canaries, what keeps an adapter, retiring, history; also as a client sees them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.adapters import FolderStorage
from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as rpc
from tuneproof.servicekit.auth import Tokens
from tuneproof.servicekit.client import connect, typed_errors
from tuneproof.servicekit.errors import InvalidInput, NotFound, Unavailable, WrongState
from tuneproof.servicekit.server import Service
from tuneproof.servicekit.testing import serving
from tuneproof_generator.doors.adapter_servicer import AdapterServicer
from tuneproof_generator.pool.alias import Alias, Target
from tuneproof_generator.pool.aliases import Aliases
from tuneproof_generator.pool.declarations import Declarations

from .fleet import Member, MovedClock, member, until
from .test_generator_pool import A, B

pytestmark = pytest.mark.timeout(20)

_SERVICES = [pb.DESCRIPTOR.services_by_name["AdapterService"]]
_TOKEN = "t" * 20


@pytest.fixture
async def one(tmp_path) -> AsyncIterator[Member]:
    async with member(tmp_path, "one", MovedClock()) as found:
        await found.declare(A)
        await found.declare(B)
        yield found


@pytest.fixture
def aliases(tmp_path) -> Aliases:
    """The stored aliases of the same pool, as another replica has them."""
    return Aliases(FolderStorage(tmp_path / "pool"))


@given(st.integers(1, 99))
def test_a_canary_gets_its_percentage(percent):
    alias = Alias("live", str(A), 1, "", None, canary_ref=str(B), canary_percent=percent)
    picks = [alias.pick(lambda n=n: (n + 0.5) / 1000) for n in range(1000)]
    assert picks.count(str(B)) == 10 * percent
    assert picks.count(str(A)) == 1000 - 10 * percent


async def test_each_request_draws_anew_and_is_told_who_served(tmp_path):
    draws = iter([0.0, 0.049, 0.05, 0.9999])
    async with member(tmp_path, "one", MovedClock(), draw=lambda: next(draws)) as one:
        await one.declare(A, B)
        await one.pool.routes.set("live", Target(A, B, 5), expected_ref="")
        assert [await one.served_by("live") for _ in range(4)] == [
            *[str(B), str(B)],
            *[str(A), str(A)],
        ]
        # Without a canary nothing is drawn: the draws are used up.
        await one.point(B, A)
        assert await one.served_by("live") == str(B)


async def test_a_canary_that_is_not_ready_is_not_hidden_by_the_other(tmp_path):
    async with member(tmp_path, "one", MovedClock(), draw=lambda: 0.0) as one:
        one.registry.lost.add(B)
        await one.declare(A)
        await one.pool.declare(B, required=False, request_id="")
        await one.settled(B)
        await one.pool.routes.set("live", Target(A, B, 5), expected_ref="", force=True)
        with pytest.raises(Unavailable, match=r"b@.* FAILED"):
            await one.ask("live")


@pytest.mark.parametrize(
    ("target", "field"),
    [
        (lambda: Target(A, None, 5), "canary_percent"),
        (lambda: Target(A, B, 0), "canary_percent"),
        (lambda: Target(A, B, 100), "canary_percent"),
        (lambda: Target(A, A, 5), "canary_ref"),
        (lambda: Target(None, B, 5), "canary_ref"),
    ],
)
def test_canaries_that_make_no_sense_are_refused(target, field):
    with pytest.raises(InvalidInput) as refused:
        target()
    assert refused.value.field == field


@pytest.mark.parametrize("target", [Target(A), Target(B, A, 5)])
async def test_what_an_alias_points_to_stays_until_the_alias_is_moved(one, aliases, target):
    # Another replica set it; this one has not seen that yet.
    aliases.move("live", target, expected_ref="", reason="")
    calls = []
    one.store.before = lambda call, path: calls.append(call)
    with pytest.raises(WrongState, match="live points to it; point live to another") as refused:
        await one.pool.remove(A)
    assert "delete" not in calls
    assert refused.value.reason == "ADAPTER_ALIASED"
    assert await one.served_by(str(A)) == str(A)
    assert Declarations(one.store).get(A)
    await one.point(B, target.ref)
    await one.pool.remove(A)
    with pytest.raises(NotFound):
        await one.ask(str(A))


async def test_a_removal_can_be_repeated(one):
    await one.pool.remove(A)
    await one.pool.remove(A)
    assert [view.record.ref for view in one.pool.views.list()] == [str(B)]


async def test_an_adapter_that_was_declared_elsewhere_can_be_removed_unseen(tmp_path, one):
    two = Member(tmp_path, "two", MovedClock())
    assert two.pool.views.list() == []
    await two.pool.remove(A)
    await one.pool.reconciler.reconcile()
    await until(lambda: [view.record.ref for view in one.pool.views.list()] == [str(B)])


async def test_an_alias_set_while_its_target_is_removed_stops_the_removal(one, aliases):
    def meanwhile(call, path):
        if call == "delete":
            one.store.before = lambda *_: None
            aliases.move("live", Target(A), expected_ref="", reason="")

    one.store.before = meanwhile
    with pytest.raises(WrongState, match="live points to it"):
        await one.pool.remove(A)
    await one.pool.reconciler.reconcile()
    assert await one.served_by("live") == str(A)


@pytest.mark.parametrize("target", [Target(B), Target(A, B, 5)])
async def test_a_target_removed_while_its_alias_is_set_sends_the_alias_back(one, aliases, target):
    await one.point(A)

    def meanwhile(call, path):
        if call == "create":
            one.store.before = lambda *_: None
            Declarations(one.store).delete(B)

    one.store.before = meanwhile
    with pytest.raises(WrongState, match=r"live was not moved: b@.* was removed"):
        await one.pool.routes.set("live", target, expected_ref=str(A), reason="gate passed")
    assert await one.served_by("live") == str(A)
    assert aliases.get("live").ref == str(A)
    assert aliases.get("live").canary_ref == ""
    assert aliases.get("live").version == 3


async def test_a_retired_alias_is_not_found_and_can_be_set_again(one):
    await one.point(A)
    with pytest.raises(InvalidInput, match="would be retired; set force"):
        await one.point(None, A)
    await one.point(None, A, force=True)
    with pytest.raises(NotFound, match="'live' is not the base model"):
        await one.ask("live")
    await one.pool.reconciler.reconcile()
    assert one.pool.routes.table == {}
    await one.pool.remove(A)
    assert (await one.point(B)).version == 3
    assert await one.served_by("live") == str(B)


async def test_a_change_repeated_under_its_request_id_is_made_once(one):
    first = await one.point(A, request_id="r1")
    assert await one.point(A, request_id="r1") == first
    with pytest.raises(WrongState, match=r"points to a@.*, not absent as expected"):
        await one.point(A, request_id="r2")
    with pytest.raises(WrongState):
        await one.point(B, request_id="r1")


@pytest.mark.parametrize("moment", ["names", "create"])
async def test_of_two_canaries_decided_on_one_version_one_is_set(one, aliases, moment):
    await one.point(A)
    decided = {"expected_ref": str(A), "expected_version": 1}

    def meanwhile(call, path):
        if call == moment and path.startswith("aliases/live"):
            one.store.before = lambda *_: None
            aliases.move("live", Target(A, B, 5), reason="", **decided)

    one.store.before = meanwhile
    with pytest.raises(WrongState) as refused:
        await one.pool.routes.set("live", Target(A, B, 10), **decided)
    assert refused.value.reason == "ALIAS_MOVED"
    assert aliases.get("live").target == Target(A, B, 5)


async def test_a_version_that_is_not_the_newest_is_refused_and_told(one):
    with pytest.raises(WrongState, match="live is at version 0, not 1 as expected"):
        await one.point(A, expected_version=1)
    first = await one.point(A, expected_version=0, request_id="r1")
    assert await one.point(A, expected_version=0, request_id="r1") == first
    await one.pool.routes.set("live", Target(A, B, 5), expected_ref=str(A), expected_version=1)
    # The canary that was set meanwhile would be lost.
    with pytest.raises(WrongState, match="live is at version 2, not 1 as expected") as refused:
        await one.point(B, A, expected_version=1)
    assert refused.value.metadata == {"current_ref": str(A), "current_version": "2"}
    # A retired alias points nowhere, as one that was never set.
    await one.point(None, A, force=True)
    with pytest.raises(WrongState, match="live is at version 3, not 0 as expected"):
        await one.point(A, expected_version=0)
    assert (await one.point(A, expected_version=3)).version == 4


@asynccontextmanager
async def _client(one: Member, tokens: Tokens | None):
    async def ready() -> None:
        one.pool.check_ready()

    def register(server) -> None:
        rpc.add_AdapterServiceServicer_to_server(AdapterServicer(one.pool), server)

    service = Service(register=register, descriptors=_SERVICES, check_ready=ready)
    async with (
        serving(service, tokens=tokens) as target,
        connect(target, services=_SERVICES, token=_TOKEN if tokens else None) as channel,
    ):
        yield rpc.AdapterServiceStub(channel)


async def test_the_history_tells_who_set_an_alias_when_and_why_newest_first(one, tmp_path):
    async def change(stub, **fields):
        request = pb.SetAliasRequest(alias="live", **fields)
        return (await stub.SetAlias(request, timeout=5)).alias

    async def history(stub, **fields):
        request = pb.ListAliasVersionsRequest(alias="live", **fields)
        return await stub.ListAliasVersions(request, timeout=5)

    named = Tokens(((_TOKEN.encode(), "manage"),), {_TOKEN.encode(): "ops@example.org"})
    async with _client(one, named) as stub:
        await change(stub, ref=str(A), reason="sha256:report")
        with pytest.raises(WrongState, match="at version 1, not 0 as expected"), typed_errors():
            await change(stub, ref=str(A), expected_ref=str(A), expected_version=0)
        await change(stub, ref=str(A), expected_ref=str(A), canary_ref=str(B), canary_percent=5)
    async with _client(one, None) as stub:
        await change(stub, ref=str(B), expected_ref=str(A))
        whole = list((await history(stub)).versions)
        assert [each.version for each in whole] == [3, 2, 1]
        assert [each.ref for each in whole] == [str(B), str(A), str(A)]
        assert [each.set_by for each in whole] == ["127.0.0.1", *["ops@example.org"] * 2]
        assert (whole[1].canary_ref, whole[1].canary_percent) == (str(B), 5)
        assert whole[2].reason == "sha256:report"
        assert whole[0].set_time.ToDatetime() >= whole[1].set_time.ToDatetime()
        first = await history(stub, page_size=2)
        second = await history(stub, page_size=2, page_token=first.next_page_token)
        assert [*first.versions, *second.versions] == whole
        assert not second.next_page_token
        (tmp_path / "pool" / "aliases" / "live" / "00000002.json").write_bytes(b"{")
        assert [each.version for each in (await history(stub)).versions] == [3, 1]
        listed = (await stub.ListAliases(pb.ListAliasesRequest(), timeout=5)).aliases
        assert [(each.name, each.ref, each.version) for each in listed] == [("live", str(B), 3)]
        with pytest.raises(NotFound, match="'never' was never set"), typed_errors():
            await stub.ListAliasVersions(pb.ListAliasVersionsRequest(alias="never"), timeout=5)


async def test_a_client_sees_every_replica_and_may_repeat_a_removal(one, tmp_path):
    async with member(tmp_path, "two", MovedClock()), _client(one, None) as stub:
        await one.pool.reconciler.reconcile()
        adapter = (await stub.GetAdapter(pb.GetAdapterRequest(ref=str(A)), timeout=5)).adapter
        assert [(each.replica, each.state, each.reason) for each in adapter.replicas] == [
            ("one", pb.ADAPTER_STATE_READY, ""),
            ("two", pb.ADAPTER_STATE_PENDING, "not seen yet"),
        ]
        assert all(each.lease_expire_time.seconds for each in adapter.replicas)
        request = pb.SetAliasRequest(alias="live", ref=str(A))
        with pytest.raises(WrongState, match="PENDING on two"), typed_errors():
            await stub.SetAlias(request, timeout=5)
        for _ in range(2):
            await stub.RemoveAdapter(pb.RemoveAdapterRequest(ref=str(A)), timeout=5)
