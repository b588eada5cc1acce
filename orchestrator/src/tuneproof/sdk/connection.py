"""A channel to one service, and what its failures mean to a caller."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from tuneproof.sdk.endpoints import variable_of
from tuneproof.servicekit.client import connect
from tuneproof.servicekit.errors import (
    DeadlineExceeded,
    Forbidden,
    Internal,
    TuneproofError,
    Unauthenticated,
    Unavailable,
)
from tuneproof.servicekit.status import error_of_call

T = TypeVar("T")

_SERVER_SAID_IT = "grpc-status-details-bin"
_STATUS_LOST = "Internal error from Core"
"""What grpc.aio (1.78) says when a server ends a stream while a request is being sent: it puts
this in the place of the status that it had not read yet."""


class Connection:
    """One service's channel.

    Args:
        service: name for messages, as `retriever`.
        target: `host:port`.

    Raises:
        Unavailable: when the target is empty.
    """

    def __init__(
        self,
        service: str,
        target: str,
        *,
        token: str | None,
        services: Sequence[ServiceDescriptor],
    ) -> None:
        if not target:
            raise Unavailable(f"no address of the {service} is given; it is written HOST:PORT")
        self._service = service
        self._target = target
        self.channel = connect(target, token=token, services=services)

    async def close(self) -> None:
        """Ends the channel and the calls on it."""
        await self.channel.close()

    @property
    def peer(self) -> str:
        """The service and its address, for messages."""
        return f"the {self._service} at {self._target}"

    @contextmanager
    def errors(self, method: str) -> Iterator[None]:
        """Turns a failed call into the server's error, or into one that names the server."""
        try:
            yield
        except grpc.aio.AioRpcError as failure:
            raise self._error_of(failure, method) from None
        except asyncio.CancelledError:
            # grpc.aio (1.78) raises this for a status CANCELLED of a unary call too, which a server
            # that stops sends; only a task that somebody cancelled is really cancelled.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise self._ended(method) from None

    def _error_of(self, failure: grpc.aio.AioRpcError, method: str) -> TuneproofError:
        if any(key == _SERVER_SAID_IT for key, _ in failure.trailing_metadata() or ()):
            said = error_of_call(failure)
            if isinstance(said, Unauthenticated | Forbidden):
                said = self._with_peer(said)  # one token goes to all services: say who minds
            return said
        if failure.code() is grpc.StatusCode.UNAVAILABLE:
            return Unavailable(
                f"{self.peer} cannot be reached ({failure.details()}); is it running?"
                f" `tuneproof up` starts it here, --{self._service} or"
                f" {variable_of(self._service)} name another address"
            )
        if failure.details() == _STATUS_LOST:
            return Unavailable(f"{self.peer} broke off the call {method}; its log tells why")
        if failure.code() is grpc.StatusCode.CANCELLED:
            return self._ended(method)
        if failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"{self.peer} did not end the call {method} in time")
        return self._with_peer(error_of_call(failure), f", {method}")

    def _with_peer(self, error: TuneproofError, method: str = "") -> TuneproofError:
        error.message = f"{self.peer}{method}: {error.message}"
        error.args = (error.message,)
        return error

    def _ended(self, method: str) -> Unavailable:
        return Unavailable(f"{self.peer} ended the call {method}; it may be stopping")


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
