"""A client of several replicas under one name: processes that are killed, and one that comes."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from replica import PIECES

from tuneproof.sdk import Generation, GeneratorClient, Restarted, Sampling
from tuneproof.servicekit.errors import Unavailable

pytestmark = [pytest.mark.process, pytest.mark.timeout(60)]

CHAT = [{"role": "user", "content": "What?"}]
WARM = Sampling(temperature=0.7)
AGE_SECONDS = "0.5"


class Fleet:
    """Replicas at the same port of 127.0.0.2, 127.0.0.3 …"""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.2", 0))
            self.port = probe.getsockname()[1]
        self._running: dict[str, subprocess.Popen[str]] = {}

    def start(self, *hosts: str) -> None:
        """Starts replicas, each named as its address, and returns when all serve."""
        program = [sys.executable, str(Path(__file__).with_name("replica.py"))]
        for host in hosts:
            self._running[host] = subprocess.Popen(
                [*program, host, f"{host}:{self.port}", AGE_SECONDS],
                stdout=subprocess.PIPE,
                text=True,
            )
        for host in hosts:
            assert self._running[host].stdout.readline() == "serving\n"

    def kill(self, *hosts: str) -> None:
        """Ends replicas at once, with SIGKILL."""
        for host in hosts or list(self._running):
            process = self._running.pop(host)
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    found = Fleet()
    try:
        found.start("127.0.0.2", "127.0.0.3")
        yield found
    finally:
        found.kill()


async def test_a_killed_replica_costs_no_call_and_its_streams_begin_again(fleet):
    target = f"ipv4:127.0.0.2:{fleet.port},127.0.0.3:{fleet.port}"
    asked_by: list[str] = []
    enough = asyncio.Event()

    async def ask_without_end() -> None:
        while not enough.is_set():
            asked_by.append((await client.pool(timeout=20)).replica)

    async with GeneratorClient(target) as client, asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(ask_without_end())
        patient = [client.generate("", CHAT, WARM, restart_on_loss=True) for _ in range(4)]
        plain = [client.generate("", CHAT, WARM) for _ in range(4)]
        begun = {stream: await anext(stream) for stream in (*patient, *plain)}
        lost = begun[patient[0]].split()[0]
        while set(asked_by) < {"127.0.0.2", "127.0.0.3"}:
            await asyncio.sleep(0.005)
        fleet.kill(lost)
        after_kill = len(asked_by)
        results = await asyncio.gather(*map(_rest, patient), *map(_rest, plain))
        while len(asked_by) < after_kill + 100:
            await asyncio.sleep(0.01)
        enough.set()
    assert lost not in asked_by[-50:]
    for stream, (events, error) in zip((*patient, *plain), results, strict=True):
        first = begun[stream]
        if not first.startswith(lost):
            assert error is None
            assert len(events) == PIECES + 1
        elif stream in plain:
            assert isinstance(error, Unavailable)
        else:
            assert error is None
            _check_restarted(first, events)


async def _rest(stream) -> tuple[list[object], Unavailable | None]:
    """The stream's other events, and what ended it too early."""
    events: list[object] = []
    try:
        async for event in stream:
            events.append(event)  # noqa: PERF401 - some come before an error
    except Unavailable as error:
        return events, error
    return events, None


def _check_restarted(first: str, events: list[object]) -> None:
    """One restart, then the whole answer from the other replica, with the same seed."""
    (at,) = [index for index, event in enumerate(events) if isinstance(event, Restarted)]
    restarted, pieces, final = events[at], events[at + 1 : -1], events[-1]
    lost, seed = first.split()
    assert restarted.attempt == 2
    assert "cannot be reached" in restarted.reason
    assert isinstance(final, Generation)
    assert final.replica != lost
    assert pieces[0] == f"{final.replica} {seed}"
    assert seed != "none:"
    assert pieces[1:] == [f" {number}" for number in range(PIECES)]
    assert final.text == "".join(pieces)


async def test_a_replica_that_comes_later_gets_calls(fleet):
    addresses = ["127.0.0.2", "127.0.0.3"]
    async with _dns(addresses) as server:
        target = f"dns://{server}/generators.test:{fleet.port}"
        async with GeneratorClient(target) as client:
            assert {(await client.pool()).replica for _ in range(20)} == set(addresses)
            fleet.start("127.0.0.4")
            addresses.append("127.0.0.4")
            async with asyncio.timeout(30):
                while (await client.pool()).replica != "127.0.0.4":
                    await asyncio.sleep(0.01)


@asynccontextmanager
async def _dns(addresses: list[str]) -> AsyncIterator[str]:
    """A name server that gives the same A records for every name; `host:port`."""

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport) -> None:
            self._transport = transport

        def datagram_received(self, query: bytes, peer) -> None:
            end = 12
            while query[end]:
                end += query[end] + 1
            question = query[12 : end + 5]
            found = addresses if question[-4:-2] == b"\0\1" else []
            counts = b"\0\1" + len(found).to_bytes(2, "big") + bytes(4)
            # A pointer to the question's name, A, IN, no time to live, four bytes.
            records = [
                b"\xc0\x0c\0\1\0\1" + bytes(4) + b"\0\4" + socket.inet_aton(a) for a in found
            ]
            answer = query[:2] + b"\x84\0" + counts + question + b"".join(records)
            self._transport.sendto(answer, peer)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Server, ("127.0.0.1", 0))
    try:
        host, port = transport.get_extra_info("sockname")
        yield f"{host}:{port}"
    finally:
        transport.close()
