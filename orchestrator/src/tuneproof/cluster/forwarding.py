"""Ports of this machine that lead to a cluster's pods.

A port stays while pods come and go: each connection to it leads to one Ready pod, the one with the
fewest. When the pod ends, its connections end, and the client's next ones lead to another pod.
Many calls share a connection, as HTTP/2 does.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
from collections import Counter
from collections.abc import Coroutine
from typing import Any, Literal, Protocol, TypeVar

import aiohttp

from tuneproof.cluster.api import Cluster, Object
from tuneproof.cluster.pods import is_ready, port_of
from tuneproof.servicekit.errors import TuneproofError

T = TypeVar("T")
Via = Literal["forward", "direct"]

_LOOPBACK = "127.0.0.1"
_LOOK_SECONDS = 1.0
_WAIT_SECONDS = 15.0
"""How long a connection waits for a Ready pod; gRPC gives up after 20 seconds."""
_PING_SECONDS = 60.0
_CHUNK = 2**16
_PROTOCOL = "v4.channel.k8s.io"


class _Tunnel(Protocol):
    """A connection to a port of a pod."""

    async def read(self) -> bytes:
        """The next bytes; empty at the end."""

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> None: ...


class _Direct:
    """By the pod's address, where this machine is in the cluster's network."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        return await self._reader.read(_CHUNK)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        self._writer.close()


class _Forwarded:
    """By the API server. Channel 0 is data, channel 1 an error; the first message of each is the
    number of the port."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._begun: set[int] = set()

    async def read(self) -> bytes:
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel not in self._begun:
                self._begun.add(channel)
            elif channel == 1:
                return b""
            elif data:
                return bytes(data)
        return b""

    async def write(self, data: bytes) -> None:
        await self._socket.send_bytes(b"\x00" + data)

    async def close(self) -> None:
        await self._socket.close()


class Forwarder:
    """Forwards ports in a thread of its own, until the process ends."""

    def __init__(self, cluster: Cluster, via: Via) -> None:
        self._cluster, self._via = cluster, via
        self.refusals: dict[str, str] = {}
        """The last pod that took no connection, and why, by selector."""
        self._connections: Counter[str] = Counter()
        self._seen: dict[str, tuple[float, list[Object]]] = {}
        self._serving: list[asyncio.Server] = []
        self._session: aiohttp.ClientSession | None = None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="forwarder", daemon=True).start()
        atexit.register(self.close)

    def open(self, selector: str, port: str | int, count: int = 1) -> list[str]:
        """Ports that lead to the pods of a selector, as `127.0.0.1:port`.

        Args:
            port: of the pods, by number or by name.
            count: of local ports: a client that uses all of them in turn spreads over as many pods.
        """
        return [self._run(self._listen(selector, port)) for _ in range(max(count, 1))]

    def close(self) -> None:
        """Ends all connections."""
        if self._loop.is_running():
            with contextlib.suppress(TimeoutError):
                self._run(self._end(), timeout=2)
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self, work: Coroutine[Any, Any, T], timeout: float = 30) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    async def _end(self) -> None:
        for server in self._serving:
            server.close()
        mine = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not mine]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _listen(self, selector: str, port: str | int) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer), contextlib.suppress(asyncio.CancelledError):
                await self._serve(selector, port, reader, writer)

        server = await asyncio.start_server(serve, _LOOPBACK, 0)
        self._serving.append(server)
        return f"{_LOOPBACK}:{server.sockets[0].getsockname()[1]}"

    async def _serve(
        self,
        selector: str,
        port: str | int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        pod, tunnel = await self._tunnel(selector, port)
        if tunnel is None:
            return

        async def there() -> None:
            while data := await reader.read(_CHUNK):
                await tunnel.write(data)

        async def back() -> None:
            while data := await tunnel.read():
                writer.write(data)
                await writer.drain()

        ways = [asyncio.ensure_future(there()), asyncio.ensure_future(back())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._connections[pod] -= 1
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            with contextlib.suppress(OSError, aiohttp.ClientError):
                await tunnel.close()

    async def _tunnel(self, selector: str, port: str | int) -> tuple[str, _Tunnel | None]:
        """A connection to a Ready pod, which counts as one of it; waits a little for the pod."""
        end = self._loop.time() + _WAIT_SECONDS
        refused: set[str] = set()
        while self._loop.time() < end:
            ready = [pod for pod in await self._pods(selector) if is_ready(pod)]
            names = {pod["metadata"]["name"]: pod for pod in ready}
            if left := [name for name in names if name not in refused]:
                name = min(left, key=lambda each: self._connections[each])
                self._connections[name] += 1
                try:
                    return name, await self._dial(names[name], port)
                except (OSError, aiohttp.ClientError, TuneproofError) as error:
                    self.refusals[selector] = f"{name}: {error}"
                    self._connections[name] -= 1
                    refused.add(name)  # it has just ended, say
            else:
                refused.clear()
                self._seen.pop(selector, None)
                await asyncio.sleep(_LOOK_SECONDS)
        return "", None

    async def _pods(self, selector: str) -> list[Object]:
        when, pods = self._seen.get(selector, (0.0, []))
        if self._loop.time() - when > _LOOK_SECONDS or not pods:
            with contextlib.suppress(TuneproofError):
                pods = await asyncio.to_thread(self._cluster.list, "pods", selector)
            self._seen[selector] = (self._loop.time(), pods)
        return pods

    async def _dial(self, pod: Object, port: str | int) -> _Tunnel:
        number = port_of(pod, port)
        if self._via == "direct":
            return _Direct(*await asyncio.open_connection(pod["status"]["podIP"], number))
        name = pod["metadata"]["name"]
        path = f"{self._cluster.path('pods', name)}/portforward?ports={number}"
        url, options = await asyncio.to_thread(self._cluster.socket, path)
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=True)
        socket = await self._session.ws_connect(
            url,
            protocols=(_PROTOCOL,),
            max_msg_size=0,
            heartbeat=_PING_SECONDS,
            timeout=aiohttp.ClientWSTimeout(ws_close=2),
            **options,
        )
        return _Forwarded(socket)
