"""Two real replicas of one pool, on a folder and on a real S3 server."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from tuneproof.adapters import Registry, identify_base
from tuneproof.adapters.testing_s3 import MISSING, S3, s3_server, s3_tools
from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as rpc
from tuneproof.servicekit.client import connect, typed_errors
from tuneproof.servicekit.errors import NotFound, Unavailable, WrongState
from tuneproof_generator.pool.store import open_pool

from .conftest import GeneratorProcess

pytestmark = [pytest.mark.engine, pytest.mark.timeout(420)]

_SERVICES = list(pb.DESCRIPTOR.services_by_name.values())
_ALIAS = "pair"


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[S3, dict[str, str]]]:
    if (script := s3_tools()) is None:
        pytest.skip(MISSING)
    with s3_server(script, tmp_path / "s3") as (server, variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield server, variables


class Door:
    """A replica as its client sees it."""

    def __init__(self, channel) -> None:
        self.ask = rpc.GeneratorServiceStub(channel)
        self.adapters = rpc.AdapterServiceStub(channel)

    async def declare(self, ref: str) -> None:
        await self.adapters.DeclareAdapter(pb.DeclareAdapterRequest(ref=ref), timeout=30)

    async def states(self, ref: str) -> dict[str, int]:
        request = pb.GetAdapterRequest(ref=ref)
        adapter = (await self.adapters.GetAdapter(request, timeout=30)).adapter
        return {each.replica: each.state for each in adapter.replicas}

    async def alias(self, ref: str, **more) -> None:
        listed = (await self.adapters.ListAliases(pb.ListAliasesRequest(), timeout=30)).aliases
        now = next((each.ref for each in listed if each.name == _ALIAS), "")
        request = pb.SetAliasRequest(alias=_ALIAS, ref=ref, expected_ref=now, **more)
        with typed_errors():
            await self.adapters.SetAlias(request, timeout=30)

    async def served(self, model: str = _ALIAS) -> tuple[str, list[int]]:
        """Which adapter answered, and with what."""
        ids: list[int] = []
        request = pb.GenerateRequest(
            model=model, text="what is the mast?", sampling=pb.Sampling(max_tokens=6)
        )
        with typed_errors():
            async for response in self.ask.Generate(request, timeout=60):
                ids += response.delta.token_ids
        return response.final.served_by.adapter_ref, ids

    async def listed(self) -> dict[str, tuple[int, list[str]]]:
        reply = await self.adapters.ListAdapters(pb.ListAdaptersRequest(), timeout=30)
        return {each.ref: (each.state, sorted(each.aliases)) for each in reply.adapters}

    async def live(self) -> list[str]:
        return list((await self.ask.GetPool(pb.GetPoolRequest(), timeout=30)).pool.live_replicas)


@asynccontextmanager
async def _door(process: GeneratorProcess) -> AsyncIterator[Door]:
    async with connect(process.target, services=_SERVICES, token=process.manage_token) as channel:
        yield Door(channel)


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Polls; the test's own time limit ends it."""
    while not await condition():
        await asyncio.sleep(0.1)


async def _ready_on(door: Door, ref: str, names: set[str]) -> None:
    async def is_ready() -> bool:
        return await door.states(ref) == dict.fromkeys(names, pb.ADAPTER_STATE_READY)

    await _until(is_ready)


async def _declared_once_and_followed(first: Door, second: Door, names, refs) -> None:
    """What is declared and aliased on one replica is served by both."""
    old, new = refs
    for ref in refs:
        await first.declare(ref)
    for ref in refs:
        await _ready_on(first, ref, names)
        await _ready_on(second, ref, names)
        assert await first.served(ref) == await second.served(ref)
    assert (await first.served(old))[1] != (await first.served(new))[1]

    async def follows() -> bool:
        try:
            return (await second.served())[0] == old
        except NotFound:
            return False

    await first.alias(old, reason="both are ready")
    await _until(follows)
    await first.alias(new, reason="a better one")
    assert (await first.served())[0] == new
    # The other one lags, answers as before, then with the new one and never again otherwise.
    seen = [await second.served()]
    while seen[-1][0] != new:
        seen.append(await second.served())
    seen += [await second.served() for _ in range(5)]
    expected = {ref: await first.served(ref) for ref in refs}
    assert all(answer == expected[answer[0]] for answer in seen)
    moved = [answer[0] for answer in seen].index(new)
    assert {answer[0] for answer in seen[moved:]} == {new}


async def _alias_waits_for_the_lease_of_the_dead(first: Door, dead: str, ref: str) -> None:
    """An adapter that the dead replica never saw: its alias waits, and not for ever."""
    await first.declare(ref)
    refusals: list[str] = []

    async def moves() -> bool:
        try:
            await first.alias(ref)
        except WrongState as error:
            refusals.append(error.message)
            return False
        return True

    await _until(moves)
    assert f"PENDING on {dead} (not seen yet)" in refusals[0]
    assert (await first.served())[0] == ref
    assert dead not in await first.live()


async def _cleared(door: Door) -> None:
    """Takes away what tests before this one left in the pool that they share."""
    for alias in (await door.adapters.ListAliases(pb.ListAliasesRequest(), timeout=30)).aliases:
        request = pb.SetAliasRequest(alias=alias.name, expected_ref=alias.ref, force=True)
        await door.adapters.SetAlias(request, timeout=30)
    for ref in await door.listed():
        await door.adapters.RemoveAdapter(pb.RemoveAdapterRequest(ref=ref), timeout=60)


@pytest.fixture
def other(generator, lab) -> Iterator[GeneratorProcess]:
    """A second replica on the folder of the first; not started."""
    made = GeneratorProcess(lab, "", "replica-1", lab.root / "replica-1")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end(signal.SIGKILL)


async def _has_the_same_set(second: Door, first: Door) -> None:
    async def is_same() -> bool:
        return await second.listed() == await first.listed()

    await _until(is_same)
    assert await second.served() == await first.served()


@pytest.mark.slow
async def test_on_a_folder(generator, other, lab, tmp_path):
    refs = SimpleNamespace(**lab.refs)
    async with _door(generator) as first:
        await _cleared(first)
        # Its name is looked at before an engine starts.
        rival = GeneratorProcess(lab, "", "replica-0", tmp_path / "rival")
        rival.launch()
        assert await asyncio.to_thread(rival.process.wait, 120) == 1
        assert f"process ({generator.pid}) is replica replica-0 of this pool" in (
            rival.log.read_text()
        )
        await first.declare(refs.one)
        await _ready_on(first, refs.one, {"replica-0"})
        await first.alias(refs.one)
        await asyncio.to_thread(other.start)
        async with _door(other) as second:
            await _has_the_same_set(second, first)
            names = {"replica-0", "replica-1"}
            await _declared_once_and_followed(first, second, names, [refs.one, refs.two])
        await asyncio.to_thread(other.end, signal.SIGKILL)
        await _alias_waits_for_the_lease_of_the_dead(first, "replica-1", refs.late)
        await _cleared(first)


@pytest.mark.faults
async def test_a_killed_replica_comes_back_to_what_changed_meanwhile(generator, other, lab):
    refs = SimpleNamespace(**lab.refs)
    async with _door(generator) as first:
        await _cleared(first)
        await asyncio.to_thread(other.start)
        async with _door(other) as second:
            await _declared_once_and_followed(
                first, second, {"replica-0", "replica-1"}, [refs.one, refs.two]
            )
        await asyncio.to_thread(other.end, signal.SIGKILL)
        await _alias_waits_for_the_lease_of_the_dead(first, "replica-1", refs.late)
        await first.adapters.RemoveAdapter(pb.RemoveAdapterRequest(ref=refs.one), timeout=60)
        await asyncio.to_thread(other.start)
        async with _door(other) as second:
            await _has_the_same_set(second, first)
            assert await second.listed() == {
                refs.two: (pb.ADAPTER_STATE_READY, []),
                refs.late: (pb.ADAPTER_STATE_READY, [_ALIAS]),
            }
            await _ready_on(first, refs.late, {"replica-0", "replica-1"})
        assert not list((lab.root / "replica-1" / "cache").glob(f"*{refs.one[-64:]}*"))
        await _cleared(first)


async def test_on_s3(s3, lab, tmp_path):
    server, variables = s3
    artifacts = f"s3://artifacts/{tmp_path.name}"
    registry, base = Registry(artifacts), identify_base(lab.base)
    refs = [
        str(
            await asyncio.to_thread(
                registry.commit, lab.peft[name], name=name, base=base, provenance={}
            )
        )
        for name in ("one", "two", "late")
    ]
    pair = [
        GeneratorProcess(lab, "", name, tmp_path / name, artifacts, variables, {"store-seconds": 3})
        for name in ("east", "west")
    ]
    try:
        for each in pair:
            each.launch()
        for each in pair:
            await asyncio.to_thread(each.wait)
        async with _door(pair[0]) as east, _door(pair[1]) as west:
            await _declared_once_and_followed(east, west, {"east", "west"}, refs[:2])
            before = await east.served()
            server.stop()

            async def says_so() -> bool:
                request = pb.GetAdapterRequest(ref=refs[0])
                adapter = (await west.adapters.GetAdapter(request, timeout=30)).adapter
                own = next(each for each in adapter.replicas if each.replica == "west")
                return own.reason.startswith("not published: the artifact store")

            await _until(says_so)
            assert await east.served() == await west.served() == before
            with pytest.raises(Unavailable):
                await east.alias(refs[0])
            server.start()
            await _ready_on(east, refs[0], {"east", "west"})
        await asyncio.to_thread(pair[1].end, signal.SIGKILL)
        async with _door(pair[0]) as east:
            await _alias_waits_for_the_lease_of_the_dead(east, "west", refs[2])
        assert await asyncio.to_thread(pair[0].end, signal.SIGTERM) == 0
        store = open_pool(artifacts, "tiny")
        assert store.names("replicas") == ["west.json"]
    finally:
        for each in pair:
            if each.process is not None and each.process.poll() is None:
                each.end(signal.SIGKILL)
