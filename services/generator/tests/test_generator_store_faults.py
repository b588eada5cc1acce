"""A pool's store that is away, hangs, is full, vanishes, or holds what nobody wrote."""

import asyncio
import threading

import pytest

from tuneproof.adapters import BoundedStore, FolderStorage
from tuneproof.servicekit.errors import NotFound, Unavailable
from tuneproof.servicekit.retries import Retries
from tuneproof_generator import metrics
from tuneproof_generator.adapters.lifecycle import AdapterState

from .fleet import LOST, Disturbed, Member, member, until
from .test_generator_pool import A, B, Replica

_SOON = Retries(first=0.001, longest=0.002)

pytestmark = pytest.mark.timeout(20)


async def test_a_store_that_takes_no_status_makes_no_replica_ready(tmp_path, clock):
    def refuse(call, path):
        if call in ("create", "write"):
            raise Unavailable("the artifact store does not answer: no such bucket")

    one = Member(tmp_path, "one", clock)
    one.store.before = refuse
    await one.pool.reconciler.reconcile()
    with pytest.raises(Unavailable):
        await one.tell()
    with pytest.raises(Unavailable, match="no such bucket"):
        one.pool.check_ready()
    one.store.before = lambda *_: None
    await one.tell()
    one.pool.check_ready()


async def test_a_replica_whose_status_vanished_takes_nothing_from_that_store(tmp_path, clock):
    async with member(tmp_path, "one", clock) as one:
        await one.declare(A)
        for path in sorted((tmp_path / "pool").rglob("*.json")):
            path.unlink()
        with pytest.raises(Unavailable, match="this replica's status any more"):
            await one.pool.reconciler.reconcile()
        assert await one.served_by(str(A)) == str(A)


async def test_a_store_that_is_away_at_the_start_is_waited_for(tmp_path):
    store = Disturbed(FolderStorage(tmp_path / "pool"))
    store.error = LOST
    replica = Replica(tmp_path, store=store)
    following = asyncio.create_task(replica.pool.reconciler.follow(0.01, failed=_SOON))
    await until(lambda: store.calls > 3)
    with pytest.raises(Unavailable, match=r"not read yet: .*connection refused"):
        replica.pool.check_ready()
    store.error = None
    await until(lambda: replica.pool.reconciler._is_done)
    replica.pool.check_ready()
    following.cancel()


@pytest.mark.parametrize("error", [LOST, OSError(5, "input/output error"), ValueError("odd")])
async def test_a_store_that_goes_away_takes_nothing_with_it(tmp_path, clock, error):
    async with member(tmp_path, "one", clock) as one:
        await one.declare(A)
        await one.point(A)
        errors = metrics.RECONCILE_ERRORS._value.get()
        following = asyncio.create_task(one.pool.reconciler.follow(0.001, failed=_SOON))
        one.store.error = error
        await until(lambda: metrics.RECONCILE_ERRORS._value.get() > errors + 2)
        one.pool.check_ready()
        assert await one.served_by("live") == str(A)
        with pytest.raises(type(error)):
            await one.point(A, A)
        one.store.error = None
        await one.declare(B)
        assert not following.done()
        following.cancel()


async def test_a_store_that_hangs_holds_up_no_request(tmp_path):
    release = threading.Event()
    inner = Disturbed(FolderStorage(tmp_path / "pool"))
    replica = Replica(tmp_path, store=BoundedStore(inner, 0.1))
    await replica.pool.reconciler.reconcile()
    await replica.pool.declare(A, required=False, request_id="")
    assert await replica.settled(A) is AdapterState.READY
    inner.before = lambda *_: release.wait()
    reconciling = asyncio.create_task(replica.pool.reconciler.reconcile())
    assert (await replica.ask(str(A)))[1].adapter_ref == str(A)
    with pytest.raises(Unavailable, match=r"no answer within 0.1 s for adapters"):
        await reconciling
    release.set()
    await replica.pool.close()


def test_calls_that_hang_do_not_pile_up_without_end(tmp_path):
    release = threading.Event()
    inner = Disturbed(FolderStorage(tmp_path))
    inner.before = lambda *_: release.wait()
    store = BoundedStore(inner, 0.001)
    for _ in range(32):
        with pytest.raises(Unavailable, match="no answer"):
            store.read("x")
    with pytest.raises(Unavailable, match="32 calls hang already"):
        store.read("x")
    assert inner.calls == 32
    release.set()
    while True:
        try:
            store.names("x")
            break
        except Unavailable:
            continue


def test_what_a_store_raises_is_unavailable_with_its_reason(tmp_path):
    inner = Disturbed(FolderStorage(tmp_path))
    store = BoundedStore(inner, 5)
    for error, said in (
        (OSError(28, "No space left on device"), "No space left"),
        (RuntimeError("Could not connect to the endpoint URL"), "endpoint URL"),
        (AssertionError(), "AssertionError"),
    ):
        inner.error = error
        with pytest.raises(Unavailable, match=said):
            store.write("aliases/x", b"")
    inner.error = None
    with pytest.raises(NotFound):
        store.read("x")


def test_a_folder_that_is_gone_is_no_empty_pool(tmp_path):
    store = FolderStorage(tmp_path / "pool")
    assert store.names("adapters") == []
    store.write("adapters/a/x.json", b"{}")
    assert store.names("adapters") == ["a"]
    (tmp_path / "pool").rename(tmp_path / "away")
    for call in (
        lambda: store.names("adapters"),
        lambda: store.read("adapters/a/x.json"),
        lambda: store.create("aliases/a/1.json", b""),
        lambda: store.write("replicas/a.json", b""),
        lambda: store.delete("adapters/a/x.json"),
    ):
        with pytest.raises(Unavailable, match="was there and is not any more"):
            call()
    assert not (tmp_path / "pool").exists()


@pytest.mark.parametrize("spoilt", [b"", b"null", b'{"ref": 1}', b"[" * 100_000])
async def test_spoilt_objects_change_nothing_that_is_served(tmp_path, clock, spoilt):
    async with member(tmp_path, "one", clock) as one:
        await one.declare(A)
        await one.point(A)
        pool = tmp_path / "pool"
        (pool / "adapters" / "a" / f"{A.hex}.json").write_bytes(spoilt)
        (pool / "adapters" / "b").mkdir()
        (pool / "adapters" / "b" / f"{B.hex}.json").write_bytes(spoilt)
        (pool / "aliases" / "live" / "00000002.json").write_bytes(spoilt)
        await one.pool.reconciler.reconcile()
        assert await one.served_by("live") == str(A)
        assert [view.record.ref for view in one.pool.list()] == [str(A)]
        assert one.pool.aliases["live"].version == 1
