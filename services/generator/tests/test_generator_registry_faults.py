"""A registry that fails, hangs or holds damage; and many who declare at once."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tuneproof.adapters import AdapterRef, Registry, identify_base, open_storage
from tuneproof.adapters.testing import lora_tensors, write_adapter, write_base
from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as rpc
from tuneproof.servicekit.client import connect
from tuneproof.servicekit.errors import Unavailable
from tuneproof.servicekit.server import Service
from tuneproof.servicekit.testing import serving
from tuneproof_generator.adapters.admission import inspector
from tuneproof_generator.adapters.lifecycle import AdapterState
from tuneproof_generator.doors.adapter_servicer import AdapterServicer

from .perilous import Faults, Replica, VirtualLoop, ref

pytestmark = [pytest.mark.long, pytest.mark.timeout(20)]

A, B = ref("a"), ref("b")
_SERVICE = pb.DESCRIPTOR.services_by_name["AdapterService"]


def _scene(loop: VirtualLoop, root: Path, play: Callable, **more) -> None:
    async def whole() -> None:
        replica = Replica(root, Faults(), clock=loop.clock, **more)
        await replica.pool.reconciler.reconcile()
        await play(replica)
        await replica.pool.close()
        assert replica.engine.violations == []

    loop.run_until_complete(whole())


async def _follow(replica: Replica, seconds: int) -> None:
    for _ in range(seconds):
        await replica.pool.reconciler.reconcile()
        await asyncio.sleep(1)


def test_a_registry_that_comes_back_is_asked_again_ever_more_rarely(loop, tmp_path):
    async def play(replica: Replica) -> None:
        replica.faults.is_down = True
        assert await replica.declare(A, required=True) is AdapterState.FAILED
        record = replica.pool.views.get(str(A)).record
        assert "does not answer (try 1; the next one at 00:00:0" in record.reason
        await _follow(replica, 900)
        at_first, later = len(replica.faults.fetched), replica.faults.fetched
        assert 8 <= at_first <= 20
        await _follow(replica, 900)
        assert 3 <= len(later) - at_first <= 7
        assert replica.pool.views.get(str(A)).record.tries == len(later)
        replica.faults.is_down = False
        await _follow(replica, 301)
        assert replica.pool.views.get(str(A)).record.state is AdapterState.READY
        assert await replica.ask(str(A)) == ("a", str(A))

    _scene(loop, tmp_path, play)


def test_declared_again_it_is_tried_at_once(loop, tmp_path):
    async def play(replica: Replica) -> None:
        replica.faults.is_down = True
        await replica.declare(A)
        await _follow(replica, 700)
        replica.faults.is_down = False
        assert await replica.declare(A) is AdapterState.READY
        assert replica.pool.views.get(str(A)).record.tries == 0

    _scene(loop, tmp_path, play)


@pytest.mark.parametrize("kind", ["damaged", "unfit"])
def test_a_defect_is_not_tried_again_by_itself(loop, tmp_path, kind):
    async def play(replica: Replica) -> None:
        getattr(replica.faults, kind).add(A)
        assert await replica.declare(A) is AdapterState.FAILED
        await _follow(replica, 700)
        assert replica.faults.fetched == [A]
        record = replica.pool.views.get(str(A)).record
        assert record.next_try is None
        assert "next one" not in record.reason

    _scene(loop, tmp_path, play)


def test_a_registry_that_hangs_holds_up_nobody_who_is_served(loop, tmp_path):
    async def play(replica: Replica) -> None:
        assert await replica.declare(A) is AdapterState.READY
        replica.faults.is_slow = True
        before = loop.time()
        await replica.pool.declare(B, required=False, request_id="")
        await replica.pool.reconciler.reconcile()
        assert await replica.ask(str(A)) == ("a", str(A))
        assert loop.time() - before < 1
        assert await replica.settled(B) is AdapterState.FAILED
        assert (
            f"did not give {B} within 60 s (try 1" in replica.pool.views.get(str(B)).record.reason
        )
        replica.faults.is_slow = False
        await _follow(replica, 5)
        assert replica.pool.views.get(str(B)).record.state is AdapterState.READY

    _scene(loop, tmp_path, play)


def test_what_comes_when_nobody_wants_it_any_more_goes_again(loop, tmp_path):
    async def play(replica: Replica) -> None:
        replica.faults.is_slow = True
        await replica.pool.declare(A, required=False, request_id="")
        await asyncio.sleep(1)
        assert replica.files()
        before = loop.time()
        await replica.pool.remove(A)
        assert loop.time() - before < 1
        assert replica.pool.views.list() == []
        replica.faults.is_slow = False
        await asyncio.sleep(5)
        assert replica.files() == set()

    _scene(loop, tmp_path, play)


class _Hanging:
    """A storage whose downloads hang, as those of a file system that does not answer."""

    def __init__(self, root: Path) -> None:
        self._storage = open_storage(str(root))
        self.answers = threading.Event()

    def __getattr__(self, name: str):
        return getattr(self._storage, name)

    def download(self, path: str, target: Path) -> None:
        self.answers.wait()
        self._storage.download(path, target)


@pytest.fixture
def store(tmp_path: Path) -> SimpleNamespace:
    """A real registry with one real adapter."""
    base = write_base(tmp_path / "base")
    made = write_adapter(tmp_path / "made", lora_tensors())
    root = tmp_path / "artifacts"
    committed = Registry(str(root)).commit(
        made, name="one", base=identify_base(base), provenance={}
    )
    weights = root / "adapters" / "one" / committed.hex / "adapter_model.safetensors"
    return SimpleNamespace(base=base, root=root, ref=committed, weights=weights)


def _real(replica: Replica, store: SimpleNamespace, registry: Registry) -> None:
    replica.fetch = registry.fetch
    check = inspector(store.base, identify_base(store.base), 16)

    def inspect(folder: Path, wanted: AdapterRef):
        facts = check(folder, wanted)
        (folder / "content").write_text(wanted.hex[0])
        return facts

    replica.inspect = inspect


async def test_threads_that_hang_keep_neither_the_service_nor_its_end(store, tmp_path):
    storage = _Hanging(store.root)
    replica = Replica(tmp_path, Faults(), fetch_seconds=0.1, in_virtual_time=False)
    _real(replica, store, Registry(str(store.root), storage=storage))
    await replica.pool.reconciler.reconcile()
    assert await replica.declare(store.ref) is AdapterState.FAILED
    assert "did not give" in replica.pool.views.get(str(store.ref)).record.reason
    hanging = [one for one in threading.enumerate() if one.name.startswith("detached")]
    assert hanging
    assert all(one.daemon for one in hanging)
    storage.answers.set()
    assert await replica.declare(store.ref) is AdapterState.READY
    assert (await replica.ask(str(store.ref)))[1] == str(store.ref)
    await replica.pool.close()
    assert replica.engine.violations == []


@pytest.mark.parametrize("damage", ["truncated", "emptied", "manifest"])
async def test_damage_in_the_registry_is_told_and_nothing_of_it_stays(store, tmp_path, damage):
    manifest = store.weights.with_name("manifest.json")
    match damage:
        case "truncated":
            store.weights.write_bytes(store.weights.read_bytes()[:-100])
        case "emptied":
            store.weights.write_bytes(b"")
        case "manifest":
            manifest.write_bytes(json.dumps(json.loads(manifest.read_bytes())).encode())
    replica = Replica(tmp_path, Faults(), in_virtual_time=False)
    _real(replica, store, Registry(str(store.root)))
    await replica.pool.reconciler.reconcile()
    assert await replica.declare(store.ref) is AdapterState.FAILED
    record = replica.pool.views.get(str(store.ref)).record
    told = {"truncated": "is cut off", "emptied": "is cut off", "manifest": "the manifest of one@"}
    assert told[damage] in record.reason
    assert record.next_try is None
    assert replica.files() == set()
    assert replica.engine.loads == []
    with pytest.raises(Unavailable, match="is FAILED, not READY"):
        await replica.ask(str(store.ref))
    await replica.pool.close()


async def test_an_adapter_that_is_not_there_yet_is_served_when_it_comes(store, tmp_path):
    away = store.root.with_name("unmounted")
    store.root.rename(away)
    replica = Replica(tmp_path, Faults(), in_virtual_time=False)
    _real(replica, store, Registry(str(store.root)))
    await replica.pool.reconciler.reconcile()
    assert await replica.declare(store.ref) is AdapterState.FAILED
    record = replica.pool.views.get(str(store.ref)).record
    assert "in the registry (try 1; the next one at" in record.reason
    away.rename(store.root)
    async with asyncio.timeout(10):
        while replica.pool.views.get(str(store.ref)).record.state is not AdapterState.READY:
            await replica.pool.reconciler.reconcile()
            await asyncio.sleep(0.05)
    await replica.pool.close()


@pytest.fixture
async def called(tmp_path: Path) -> AsyncIterator[SimpleNamespace]:
    """A replica with a capacity of twenty behind a real server."""
    replica = Replica(tmp_path, Faults(), capacity=20)
    await replica.pool.reconciler.reconcile()
    servicer = AdapterServicer(replica.pool)

    async def check_ready() -> None:
        replica.pool.check_ready()

    service = Service(
        register=lambda server: rpc.add_AdapterServiceServicer_to_server(servicer, server),
        descriptors=[_SERVICE],
        check_ready=check_ready,
    )
    async with serving(service) as target, connect(target, services=[_SERVICE]) as channel:
        yield SimpleNamespace(replica=replica, stub=rpc.AdapterServiceStub(channel))
    await replica.pool.close()
    assert replica.engine.violations == []


async def test_two_hundred_declarations_at_once_cause_one_fetch_and_one_load(called):
    calls = [pb.DeclareAdapterRequest(ref=str(A), request_id=str(n)) for n in range(200)]
    replies = await asyncio.gather(*(called.stub.DeclareAdapter(call) for call in calls))
    assert {reply.adapter.ref for reply in replies} == {str(A)}
    assert await called.replica.settled(A) is AdapterState.READY
    assert called.replica.faults.fetched == [A]
    assert called.replica.engine.loads == [str(A)]


async def test_of_twenty_adapters_declared_ten_times_each_is_loaded_once(called):
    wanted = [AdapterRef(f"many-{n}", f"sha256:{n:064x}") for n in range(20)]
    calls = [pb.DeclareAdapterRequest(ref=str(one)) for _ in range(10) for one in wanted]
    await asyncio.gather(*(called.stub.DeclareAdapter(call) for call in calls))
    for one in wanted:
        assert await called.replica.settled(one) is AdapterState.READY
    assert sorted(called.replica.faults.fetched) == sorted(wanted)
    assert sorted(called.replica.engine.loads) == sorted(map(str, wanted))
    told = (await called.stub.ListAdapters(pb.ListAdaptersRequest())).adapters
    assert {one.ref: one.state for one in told} == {
        str(one): pb.ADAPTER_STATE_READY for one in wanted
    }
    assert {one.residency for one in told} == {pb.RESIDENCY_HOST, pb.RESIDENCY_SLOT}
