"""What runs in the pods of `test_edges.py`: listeners on all ports, and connections to others.

Standard library only: the pods run it as a script.

    python connections.py listen HOST PORT…    answers on TCP and UDP ports, until it is ended
    python connections.py try < ADDRESSES      which of the addresses answer, both as JSON
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys

SECONDS = 6.0
"""How long an attempt waits, on a busy machine too: what a policy refuses is dropped."""


class _Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self._transport.sendto(data, address)  # type: ignore[attr-defined]


async def listen(host: str, ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    for port in ports:
        await loop.create_datagram_endpoint(_Echo, local_addr=(host, port))
    for port in ports:  # The last one tells that all are open.
        await asyncio.start_server(lambda _, writer: writer.close(), host, port)
    await asyncio.Event().wait()


async def attempt(kind: str, host: str, port: int) -> bool:
    """Whether something answers there; of the kind `name`, whether there is an address."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(SECONDS):
            if kind == "name":
                return bool(await loop.getaddrinfo(host, port))
            if kind == "tcp":
                _, writer = await asyncio.open_connection(host, port)
                writer.close()
                return True
            with socket.socket(type=socket.SOCK_DGRAM) as own:
                own.setblocking(False)
                await loop.sock_connect(own, (host, port))
                for _ in range(3):
                    await loop.sock_sendall(own, b"?")
                return await loop.sock_recv(own, 1) == b"?"
    except OSError:
        return False


async def attempts(addresses: list[tuple[str, str, int]]) -> list[bool]:
    return await asyncio.gather(*(attempt(*address) for address in addresses))


if __name__ == "__main__":
    if sys.argv[1] == "listen":
        asyncio.run(listen(sys.argv[2], [int(port) for port in sys.argv[3:]]))
    else:
        print(json.dumps(asyncio.run(attempts(json.load(sys.stdin)))))
