"""A pool's store that is away, hangs, is full, vanishes, or holds what nobody wrote."""

import asyncio
import threading

import pytest

from tuneproof.adapters import BoundedStore, FolderStorage
from tuneproof.servicekit.errors import Unavailable
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
        with pytest.raises(Unavailable, match="lost this replica's status"):
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
        assert [view.record.ref for view in one.pool.views.list()] == [str(A)]
        assert one.pool.routes.table["live"].version == 1
