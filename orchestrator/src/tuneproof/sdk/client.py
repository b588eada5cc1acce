"""What the four clients share: the calls of a contract, by the types of their requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, ClassVar, Self, TypeVar

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message

from tuneproof.sdk.connection import Connection
from tuneproof.sdk.endpoints import Endpoints
from tuneproof.sdk.streams import Exchange, In, Inputs, Out
from tuneproof.servicekit.client import Token
from tuneproof.servicekit.errors import Internal, TuneproofError
from tuneproof.servicekit.tls import ClientTls

T = TypeVar("T")


class Client:
    """A connection and the calls on it; an asynchronous context manager.

    Every method raises the service's own error (`InvalidInput`, `NotFound` …), `Unavailable` when
    the service cannot be reached, and `DeadlineExceeded` after `timeout` seconds.
    """

    service: ClassVar[str]
    """Name, as `retriever`."""
    contract: ClassVar[FileDescriptor]
    """Declares the calls."""
    stubs: ClassVar[tuple[Callable[[grpc.aio.Channel], object], ...]]
    """Classes of the contract's stubs."""

    def __init__(
        self, target: str, *, token: Token | None = None, tls: ClientTls | None = None
    ) -> None:
        services = self.contract.services_by_name.values()
        self._connection = Connection(self.service, target, token=token, services=services, tls=tls)
        self._stubs = [stub(self._connection.channel) for stub in self.stubs]

    @classmethod
    def of(cls, endpoints: Endpoints, target: str = "") -> Self:
        """A client of the service at these endpoints, or at another target.

        Raises:
            Unavailable: no address is known.
        """
        address = target or endpoints.target(cls.service)
        return cls(address, token=endpoints.token, tls=endpoints.tls_of(cls.service, address))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *ended: object) -> None:
        await self._connection.close()

    async def _call(
        self, request: Any, timeout: float, *, kind: type[Message] | None = None
    ) -> Any:
        """The reply to a request, or to a stream of requests of a kind."""
        name, call = self._method(kind or type(request))
        with self._connection.errors(name):
            return await call(request, timeout=timeout)

    async def _replies(self, request: Message, timeout: float) -> AsyncGenerator[Any, None]:
        """The replies of a stream; closing the iterator ends the call."""
        name, call = self._method(type(request))
        stream = call(request, timeout=timeout)
        try:
            replies = aiter(stream)
            while True:
                with self._connection.errors(name):
                    reply = await anext(replies, None)
                if reply is None:
                    return
                yield reply
        finally:
            stream.cancel()

    async def _entries(self, request: Any, field: str, timeout: float) -> Iterable[Any]:
        """The entries of all pages of a list, which are in a field of each reply."""

        async def read(token: str) -> tuple[Sequence[Any], str]:
            request.page_token = token
            reply = await self._call(request, timeout)
            return getattr(reply, field), reply.next_page_token

        return await all_pages(read)

    def _outcomes(
        self,
        kind: type[Message],
        inputs: Inputs[In],
        pack: Callable[[In], dict[str, Message]],
        unpack: Callable[[Any], Out],
        **limits: Any,
    ) -> AsyncIterator[tuple[str, Out | TuneproofError]]:
        """Answers many requests over one stream; see `Exchange` for the limits.

        Args:
            kind: of the stream's messages.
            pack: gives a message's fields, all but its id.
        """
        name, call = self._method(kind)

        def message(id_: str, value: In) -> Message:
            return kind(id=id_, **pack(value))

        return Exchange(self._connection, name, call, message, unpack, **limits).outcomes(inputs)

    def _method(self, kind: type[Message]) -> tuple[str, Callable[..., Any]]:
        """The call that takes a type of request: `GetRun` for `GetRunRequest`."""
        name = kind.__name__.removesuffix("Request")
        return name, next(getattr(stub, name) for stub in self._stubs if hasattr(stub, name))


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
