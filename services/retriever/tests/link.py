"""A TCP link to a server that a test can cut: it swallows what is sent, and refuses nothing.

Connections stay, and so does what they had sent: it arrives when the link is mended. See `cable`
for packets that are lost. The link may also encrypt: then it ends TLS before the server.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Self

_CHUNK = 65_536


class Link:
    """Listens on a port of this machine and passes bytes on to a server, both ways."""

    def __init__(
        self,
        target: str,
        *,
        tls: ssl.SSLContext | None = None,
        listening: socket.socket | None = None,
    ) -> None:
        """
        Args:
            target: host:port of the server.
            tls: what callers must speak; None passes bytes as they are.
            listening: where callers come in; None: a free port of this machine.
        """
        self._listening = listening or socket.create_server(("127.0.0.1", 0))
        self._host, _, self._port = target.rpartition(":")
        self._tls = tls
        self._whole = asyncio.Event()
        self._whole.set()
        self._passing: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """host:port."""
        host, port = self._listening.getsockname()
        return f"{host}:{port}"

    def cut(self) -> None:
        """From now on nothing passes, on old and new connections."""
        self._whole.clear()

    def mend(self) -> None:
        """Lets everything pass that waited."""
        self._whole.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, sock=self._listening, ssl=self._tls)
        return self

    async def __aexit__(self, *ended: object) -> None:
        self._server.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        try:
            await self._whole.wait()
            there, back = await asyncio.open_connection(self._host, int(self._port))
            try:
                with suppress(OSError):
                    async with asyncio.TaskGroup() as both:
                        both.create_task(self._pass(reader, back))
                        both.create_task(self._pass(there, writer))
            finally:
                back.close()
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._passing.discard(task)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(_CHUNK):
            await self._whole.wait()
            sink.write(data)
            await sink.drain()
        raise ConnectionResetError  # one side has ended, so both do
