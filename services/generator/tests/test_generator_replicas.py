"""Leases, and what replicas of one pool do with what they tell each other."""

import asyncio
import json
import subprocess
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tuneproof.adapters import FolderStorage
from tuneproof.servicekit.errors import InvalidInput, Unavailable, WrongState
from tuneproof.servicekit.processes import is_running, this_process
from tuneproof_generator import metrics
from tuneproof_generator.adapters.lifecycle import AdapterState
from tuneproof_generator.pool.alias import Target
from tuneproof_generator.pool.aliases import Aliases
from tuneproof_generator.pool.declarations import Declarations
from tuneproof_generator.pool.replica_status import AdapterStatus, ReplicaStatus
from tuneproof_generator.pool.replicas import Replicas

from .fleet import LOST, Disturbed, Member, member, until
from .test_generator_pool import A, B

pytestmark = pytest.mark.timeout(20)

READY = {str(A): AdapterStatus(AdapterState.READY)}


@pytest.fixture
def store(tmp_path):
    return Disturbed(FolderStorage(tmp_path / "pool"))


def _replicas(store, name, clock, **more):
    return Replicas(store, name, **{"lease_seconds": 15, "process": name, "clock": clock} | more)


def _status(name, **more):
    made = ReplicaStatus(name, "i" * 8, 1, datetime.now(UTC), 15.0, name, READY)
    return replace(made, **more)


async def test_a_replica_counts_for_one_lease_after_it_last_told_anything(store, clock):
    one, two = _replicas(store, "one", clock), _replicas(store, "two", clock)
    await two.renew(READY)
    await one.refresh()
    assert one.live() == ["one", "two"]
    assert one.others() == {"two": READY}
    clock.seconds += 14
    await two.renew({})
    await one.refresh()
    clock.seconds += 14
    await one.refresh()
    assert one.others() == {"two": {}}
    clock.seconds += 1
    assert one.live() == ["one"]
    await two.renew({})
    await one.refresh()
    assert one.live() == ["one", "two"]


@pytest.mark.parametrize("hours", [-2, 2])
async def test_a_wrong_clock_costs_no_lease(store, clock, hours):
    wrong = datetime.now(UTC) + timedelta(hours=hours)
    one = _replicas(store, "one", clock)
    for sequence in (1, 2):
        status = _status("two", sequence=sequence, written=wrong)
        store.write(status.path, status.dump())
        await one.refresh()
    assert one.live() == ["one", "two"]
    assert abs(one.lease_end("two") - datetime.now(UTC) - timedelta(seconds=15)) < timedelta(
        seconds=5
    )
    clock.seconds += 15
    assert one.live() == ["one"]


async def test_the_last_use_elsewhere_is_told_by_this_clock(store, clock):
    one = _replicas(store, "one", clock)
    assert one.last_used(str(A)) is None
    wrong = datetime.now(UTC) + timedelta(hours=5)
    used = AdapterStatus(AdapterState.READY, last_used=wrong - timedelta(seconds=60))
    for sequence in (1, 2):
        status = _status("two", sequence=sequence, written=wrong, adapters={str(A): used})
        store.write(status.path, status.dump())
        await one.refresh()
    clock.seconds += 10
    age = datetime.now(UTC) - one.last_used(str(A))
    assert abs(age - timedelta(seconds=70)) < timedelta(seconds=5)
    assert one.last_used(str(B)) is None


async def test_who_died_long_ago_is_dead_at_first_sight_and_forgotten_later(store, clock):
    old = _status("two", written=datetime.now(UTC) - timedelta(days=1))
    store.write(old.path, old.dump())
    one = _replicas(store, "one", clock)
    await one.refresh()
    assert one.live() == ["one"]
    clock.seconds += 15 * 20 + 1
    await one.refresh()
    assert store.names("replicas") == []


async def test_a_restarted_replica_is_believed_from_its_first_word(store, clock):
    one, before = _replicas(store, "one", clock), _replicas(store, "two", clock)
    for _ in range(5):
        await before.renew(READY)
    await one.refresh()
    clock.seconds += 14
    await _replicas(store, "two", clock).renew({})
    await one.refresh()
    clock.seconds += 14
    assert one.others() == {"two": {}}


async def test_a_late_write_takes_nothing_back(store, clock):
    one = _replicas(store, "one", clock)
    store.write("replicas/two.json", _status("two", sequence=7).dump())
    await one.refresh()
    store.write("replicas/two.json", _status("two", sequence=6, adapters={}).dump())
    await one.refresh()
    assert one.others() == {"two": READY}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\x00",
        _status("two").dump()[:-20],
        _status("three").dump(),
        _status("two", lease_seconds=float("nan")).dump(),
        json.dumps({**json.loads(_status("two").dump()), "adapters": {"x": "READY"}}).encode(),
    ],
    # The data hold times: two workers must give a test the same name.
    ids=["empty", "list", "null", "binary", "cut", "another's", "endless", "unlike"],
)
async def test_a_spoilt_status_is_ignored_and_hides_nobody(store, clock, data):
    one, four = _replicas(store, "one", clock), _replicas(store, "four", clock)
    await four.renew(READY)
    store.write("replicas/two.json", data)
    before = metrics.IGNORED_OBJECTS.labels("status")._value.get()
    await one.refresh()
    assert one.live() == ["four", "one"]
    assert metrics.IGNORED_OBJECTS.labels("status")._value.get() == before + 1
    store.write("replicas/one.json", data)
    await one.renew({})
    assert ReplicaStatus.load(store.read("replicas/one.json"), "replicas/one.json").replica == "one"


async def test_of_two_with_one_name_the_second_waits_until_the_first_is_gone(store, clock):
    first = _replicas(store, "one", clock, process="machine-a")
    second = _replicas(store, "one", clock, process="machine-b")
    await first.renew(READY)
    await second.renew({})
    with pytest.raises(Unavailable, match=r"is replica one of this pool; .*--replica"):
        second.check()
    first.check()
    for _ in range(3):
        clock.seconds += 5
        await second.renew({})
    second.check()
    # The first only hung. It finds its name taken, and leaves it so.
    await first.renew(READY)
    with pytest.raises(Unavailable, match="another name"):
        first.check()
    second.check()
    assert first.obstacle
    assert not second.obstacle


async def test_of_two_who_come_at_once_one_has_the_name(tmp_path, clock):
    def late(call, path):
        if call == "create":
            store.before = lambda *_: None
            rival = _replicas(FolderStorage(tmp_path / "pool"), "one", clock, process="rival")
            asyncio.run(rival.renew({}))

    store = Disturbed(FolderStorage(tmp_path / "pool"))
    store.before = late
    one = _replicas(store, "one", clock)
    with pytest.raises(Unavailable, match="at this moment"):
        await one.renew(READY)
    await one.renew(READY)
    with pytest.raises(Unavailable, match="another name"):
        one.check()


def test_a_process_is_known_by_where_and_when_it_started():
    here, own_id, _ = this_process().rsplit("/", 2)
    with subprocess.Popen(["sleep", "60"]) as child:
        started = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        name = f"{here}/{child.pid}/{started}"
        assert is_running(name) is True
        assert is_running(f"{here}/{child.pid}/{int(started) + 1}") is False
        assert is_running(f"another-boot/pid:[1]/{child.pid}/{started}") is None
        child.kill()
    assert is_running(name) is False
    assert is_running(this_process()) is True
    assert is_running("") is None
    assert is_running("one") is None
    assert own_id.isdigit()


async def test_a_living_process_of_this_machine_keeps_its_name_and_a_dead_one_does_not(
    store, clock
):
    second = _replicas(store, "one", clock)
    with subprocess.Popen(["sleep", "60"]) as child:
        here = this_process().rsplit("/", 2)[0]
        started = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        first = _replicas(store, "one", clock, process=f"{here}/{child.pid}/{started}")
        await first.renew(READY)
        with pytest.raises(InvalidInput, match=rf"process \({child.pid}\) is replica one"):
            second.check_name()
        child.kill()
    second.check_name()
    await second.renew({})
    assert not second.obstacle


async def test_changes_are_told_soon_and_together_and_the_status_goes_at_the_end(
    tmp_path, clock, monkeypatch
):
    monkeypatch.setattr("tuneproof_generator.pool.replicas._COALESCE_SECONDS", 0.3)
    # So long that no status is written because of it.
    one = Member(tmp_path, "one", clock, lease=3600)

    def told():
        return ReplicaStatus.load(one.store.read("replicas/one.json"), "replicas/one.json")

    async with one.replicas.present(one.pool.views.statuses):
        await until(lambda: one.store.names("replicas") == ["one.json"])
        await one.pool.reconciler.reconcile()
        await one.pool.declare(A, required=False, request_id="")
        await until(lambda: told().adapters == READY)
        for _ in range(200):
            one.replicas.changed()
            await asyncio.sleep(0.001)
        await one.pool.remove(A)
        await until(lambda: told().adapters == {})
        assert told().sequence < 20
    assert one.store.names("replicas") == []
    await one.pool.close()


async def test_an_alias_waits_for_every_live_replica(tmp_path, clock):
    async with member(tmp_path, "one", clock) as one, member(tmp_path, "two", clock) as two:
        await one.declare(A)
        with pytest.raises(WrongState, match=r"PENDING on two \(not seen yet\)") as refused:
            await one.point(A)
        assert refused.value.reason == "ADAPTER_NOT_READY"
        assert "on one" not in refused.value.message
        two.registry.lost.add(A)
        await two.pool.reconciler.reconcile()
        assert await two.settled(A) is AdapterState.FAILED
        await two.tell()
        with pytest.raises(WrongState, match=r"FAILED on two \(no adapter"):
            await one.point(A)
        assert (await one.point(A, force=True)).version == 1
        two.registry.lost.clear()
        await two.declare(A)
        assert (await one.point(A, A)).version == 2


async def test_a_dead_replica_holds_an_alias_for_one_lease(tmp_path, clock):
    async with member(tmp_path, "one", clock) as one:
        async with member(tmp_path, "two", clock):
            await one.declare(A)
        with pytest.raises(WrongState, match="on two"):
            await one.point(A)
        clock.seconds += 15
        await one.point(A)
        assert await one.served_by("live") == str(A)


async def test_lists_tell_an_adapters_state_on_every_live_replica(tmp_path, clock):
    async with member(tmp_path, "one", clock) as one, member(tmp_path, "two", clock) as two:
        await one.declare(A)
        await one.pool.reconciler.reconcile()

        def told():
            return {
                each.replica: (each.status.state, each.status.reason)
                for each in one.pool.views.get(str(A)).replicas
            }

        assert told() == {
            "one": (AdapterState.READY, ""),
            "two": (AdapterState.PENDING, "not seen yet"),
        }
        async with aclosing(one.pool.views.watch(frozenset({str(A)}))) as changes:
            await anext(changes)
            await two.follow(A)
            await one.pool.reconciler.reconcile()
            change = await anext(changes)
        assert [each.status.state for each in change.view.replicas] == [
            AdapterState.READY,
            AdapterState.READY,
        ]
        one.store.error = LOST
        with pytest.raises(Unavailable):
            await one.tell()
        assert told()["one"] == (AdapterState.READY, f"not published: {LOST.message}")


async def test_a_lagging_replica_answers_with_the_old_target_then_with_the_new(tmp_path, clock):
    async with member(tmp_path, "one", clock) as one, member(tmp_path, "two", clock) as two:
        await one.declare(A, B)
        await two.follow(A, B)
        await one.point(A)
        await two.pool.reconciler.reconcile()
        await one.point(B, A)
        assert await one.served_by("live") == str(B)
        assert await two.served_by("live") == str(A)
        # The old target goes at once; the one that lags serves it until it sees both changes.
        await one.pool.remove(A)
        assert await two.served_by("live") == str(A)
        two.engine.go.clear()
        running = asyncio.create_task(two.served_by("live"))
        await until(lambda: two.pool.views.get(str(A)).usage.running == 1)
        await two.pool.reconciler.reconcile()
        assert two.pool.views.get(str(A)).record.state is AdapterState.DRAINING
        two.engine.go.set()
        assert await running == str(A)
        assert await two.served_by("live") == str(B)


@pytest.mark.parametrize("moment", ["replicas", "adapters", "aliases"])
async def test_an_alias_moved_while_a_replica_reads_never_points_to_what_it_drains(
    tmp_path, clock, moment
):
    async with member(tmp_path, "one", clock) as one:
        await one.declare(A, B)
        await one.point(A)
        elsewhere = FolderStorage(tmp_path / "pool")

        def meanwhile(call, path):
            if (call, path) == ("names", moment):
                one.store.before = lambda *_: None
                Aliases(elsewhere).move("live", Target(B), expected_ref=str(A), reason="")
                Declarations(elsewhere).delete(A)

        one.store.before = meanwhile
        await one.pool.reconciler.reconcile()
        assert await one.served_by("live") == str(B)


async def test_a_forced_alias_is_never_answered_by_the_base(tmp_path, clock):
    async with member(tmp_path, "one", clock) as one, member(tmp_path, "two", clock) as two:
        await one.declare(A, B)
        await two.follow(A, B)
        await one.point(A)
        await two.pool.reconciler.reconcile()
        two.registry.lost.add(B)
        await two.pool.remove(B)
        await one.pool.declare(B, required=False, request_id="")
        await one.point(B, A, force=True)
        await two.pool.reconciler.reconcile()
        assert await two.settled(B) is AdapterState.FAILED
        with pytest.raises(Unavailable, match="FAILED"):
            await two.ask("live")


async def test_an_alias_to_two_adapters_waits_for_both(tmp_path, clock):
    async with member(tmp_path, "one", clock) as one, member(tmp_path, "two", clock) as two:
        await one.declare(A, B)
        await two.follow(A, B)
        await two.pool.remove(B)
        await two.tell()
        with pytest.raises(WrongState, match=r"adapter b@.* PENDING on two"):
            await one.pool.routes.set("live", Target(A, B, 5), expected_ref="")
