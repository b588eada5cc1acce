"""A channel to one service, and what its failures mean to a caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Self, TypeVar

from google.protobuf.descriptor import ServiceDescriptor

from tuneproof.sdk.endpoints import variable_of
from tuneproof.servicekit.client import connect, typed_errors
from tuneproof.servicekit.errors import Internal, Unavailable

T = TypeVar("T")


class Connection:
    """One service's channel.

    Args:
        service: name for messages, as `retriever`.
        target: `host:port`, or a name that stands for many, as `dns:///host:port`.
        services: of the contract, whose idempotent calls are retried.

    Raises:
        Unavailable: when the target is empty.
    """

    def __init__(
        self,
        service: str,
        target: str,
        *,
        token: str | None,
        services: Iterable[ServiceDescriptor],
    ) -> None:
        if not target:
            raise Unavailable(f"no address of the {service} is given; it is written HOST:PORT")
        self._service = service
        self._target = target
        self.channel = connect(target, token=token, services=tuple(services))

    async def close(self) -> None:
        """Ends the channel and the calls on it."""
        await self.channel.close()

    @property
    def peer(self) -> str:
        """The service and its address, for messages."""
        return f"the {self._service} at {self._target}"

    def errors(self, method: str) -> AbstractContextManager[None]:
        """Turns a failed call into the server's error, or into one that names the server."""
        if_away = (
            f"; is it running? `tuneproof up` starts it here, --{self._service} or"
            f" {variable_of(self._service)} name another address"
        )
        return typed_errors(method, peer=self.peer, if_away=if_away)


class Client:
    """What the four clients share: each is a context manager that closes its connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *ended: object) -> None:
        await self._connection.close()


async def all_pages(read: Callable[[str], Awaitable[tuple[Sequence[T], str]]]) -> list[T]:
    """The entries of all pages of a list.

    Args:
        read: gives the entries of the page with a token, and the next page's token.

    Raises:
        Internal: when the tokens repeat.
    """
    found: list[T] = []
    token = ""
    seen = set()
    while True:
        entries, token = await read(token)
        found.extend(entries)
        if not token:
            return found
        if token in seen:
            raise Internal("the pages of a list repeat: the service gave a page token twice")
        seen.add(token)
