"""A replica killed with SIGKILL while adapters are fetched, verified, loaded and drained.

It is held in each stage, so that the kill meets it there: in fetch and verification by a lease on a
file, for which whoever opens the file has to wait; in load and drain by engine processes that are
stopped. Two kills, of two stages each, since a start takes half a minute.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as rpc
from tuneproof.servicekit.client import connect

from .conftest import GeneratorProcess

pytestmark = [pytest.mark.engine, pytest.mark.faults, pytest.mark.timeout(420)]

_SERVICES = list(pb.DESCRIPTOR.services_by_name.values())


@asynccontextmanager
async def _connected(replica: GeneratorProcess) -> AsyncIterator[SimpleNamespace]:
    async with connect(replica.target, services=_SERVICES, token=replica.manage_token) as channel:
        yield SimpleNamespace(
            ask=rpc.GeneratorServiceStub(channel), adapters=rpc.AdapterServiceStub(channel)
        )


async def _reaches(stubs, ref, state):
    """Waits until an adapter is in a state."""
    watched = stubs.adapters.WatchAdapters(pb.WatchAdaptersRequest(refs=[ref]), timeout=60)
    async for response in watched:
        assert response.adapter.state != pb.ADAPTER_STATE_FAILED, response.adapter.reason
        if response.adapter.state == state:
            return


async def _declare(stubs, ref, until=pb.ADAPTER_STATE_READY):
    await stubs.adapters.DeclareAdapter(pb.DeclareAdapterRequest(ref=ref))
    await _reaches(stubs, ref, until)


def _request(ref: str, tokens: int) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        model=ref,
        chat=pb.Chat(messages=[pb.Message(role=pb.ROLE_USER, content="who?")]),
        sampling=pb.Sampling(max_tokens=tokens),
        return_prompt_token_ids=True,
    )


async def _serves(stubs, lab, reference, *names) -> None:
    """The adapters come back by themselves, and answer as they should."""
    for name in names:
        await _reaches(stubs, lab.refs[name], pb.ADAPTER_STATE_READY)
        ids = []
        async for response in stubs.ask.Generate(_request(lab.refs[name], 8), timeout=60):
            ids += response.delta.token_ids
        prompt = list(response.final.prompt_token_ids)
        assert ids == reference(name, prompt, 8)
    told = (await stubs.adapters.ListAdapters(pb.ListAdaptersRequest())).adapters
    assert {one.ref for one in told} == {lab.refs[name] for name in names}


def _until(done: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        time.sleep(0.001)


class _Lease:
    """Makes whoever opens a file wait (for up to /proc/sys/fs/lease-break-time seconds)."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")

        def is_taken() -> bool:  # Once nobody else has the file open.
            try:
                fcntl.fcntl(self._file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            except BlockingIOError:
                return False
            return True

        _until(is_taken)

    def is_asked_for(self) -> bool:
        return fcntl.fcntl(self._file, fcntl.F_GETLEASE) != fcntl.F_WRLCK

    def release(self) -> None:
        fcntl.fcntl(self._file, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    def close(self) -> None:
        self._file.close()


@contextmanager
def _held(path: Path) -> Iterator[_Lease]:
    lease = _Lease(path)
    try:
        yield lease
    finally:
        lease.close()


@pytest.fixture
def quiet_leases() -> Iterator[None]:
    """Who holds a lease is told by SIGIO when it is asked for, which ends a process by default."""
    before = signal.signal(signal.SIGIO, lambda *_: None)
    yield
    signal.signal(signal.SIGIO, before)


@pytest.fixture
def replica(lab, collector, tmp_path, quiet_leases) -> Iterator[GeneratorProcess]:
    made = GeneratorProcess(
        lab, collector.endpoint, folder=tmp_path / "replica", flags={"model-name": "killed"}
    )
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        assert made.end(signal.SIGTERM) == 0


def _cached(replica: GeneratorProcess) -> set[str]:
    assert replica.folder is not None
    return {path.name for path in (replica.folder / "cache").iterdir()} - {".lock"}


def _hex(ref: str) -> str:
    return ref[-64:]


async def test_killed_in_any_stage_it_serves_the_declared_set_again(replica, lab, reference):
    def card(name: str) -> Path:
        return lab.artifacts / "adapters" / name / _hex(lab.refs[name]) / "README.md"

    def half(name: str) -> list[Path]:
        cache = replica.folder / "cache"
        return list(cache.glob(f".{_hex(lab.refs[name])[:12]}.*/adapter_config.json"))

    async with _connected(replica) as stubs:
        await _declare(stubs, lab.refs["late"])
        with _held(card("one")) as fetching, _held(card("two")):
            await _declare(stubs, lab.refs["one"], pb.ADAPTER_STATE_FETCHING)
            _until(lambda: half("one"))
            config = half("one")[0]
            with _held(config) as checking:
                fetching.release()
                _until(checking.is_asked_for)
                # The registry has read the weights; the next to read them is the verification.
                with _held(config.with_name("adapter_model.safetensors")) as verifying:
                    checking.release()
                    await _reaches(stubs, lab.refs["one"], pb.ADAPTER_STATE_VERIFYING)
                    await _declare(stubs, lab.refs["two"], pb.ADAPTER_STATE_FETCHING)
                    _until(lambda: half("two"))
                    _until(verifying.is_asked_for)
                    replica.end(signal.SIGKILL)
    assert _cached(replica) > {_hex(lab.refs["late"]), _hex(lab.refs["one"])}
    assert half("two")

    replica.start()
    async with _connected(replica) as stubs:
        await _serves(stubs, lab, reference, "late", "one", "two")
        assert _cached(replica) == {_hex(lab.refs[name]) for name in ("late", "one", "two")}

        running = aiter(stubs.ask.Generate(_request(lab.refs["late"], 400), timeout=60))
        await anext(running)
        engine = replica.children()
        for process in engine:
            os.kill(process, signal.SIGSTOP)
        await _declare(stubs, lab.refs["brief"], pb.ADAPTER_STATE_LOADING)
        removal = stubs.adapters.RemoveAdapter(pb.RemoveAdapterRequest(ref=lab.refs["late"]))
        await _reaches(stubs, lab.refs["late"], pb.ADAPTER_STATE_DRAINING)
        replica.process.kill()
        replica.process.wait(30)
        with pytest.raises(grpc.aio.AioRpcError):
            await removal
    for process in engine:
        os.kill(process, signal.SIGCONT)
    _until(lambda: not any(_is_running(process) for process in engine))
    assert _hex(lab.refs["late"]) in _cached(replica)

    replica.start()
    async with _connected(replica) as stubs:
        await _serves(stubs, lab, reference, "one", "two", "brief")
        assert _cached(replica) == {_hex(lab.refs[name]) for name in ("one", "two", "brief")}
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            async for _ in stubs.ask.Generate(_request(lab.refs["late"], 1)):
                pass
        assert gone.value.code() == grpc.StatusCode.NOT_FOUND


def _is_running(process: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
