"""Many requests over one stream, each answered under its caller's id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from typing import Any, Generic, TypeVar

from tuneproof.sdk.connection import Connection
from tuneproof.servicekit.errors import Internal, InvalidInput, TuneproofError, Unavailable
from tuneproof.servicekit.status import error_of

In = TypeVar("In")
Out = TypeVar("Out")

Inputs = Mapping[str, In] | AsyncIterable[tuple[str, In]]
"""Requests by id; the ids of an iterable must be unique too."""


class Exchange(Generic[In, Out]):
    """One stream of requests and answers.

    Args:
        method: the call's name, for messages.
        call: starts the call, from an iterator of messages.
        pack: makes the message of an id and a request.
        unpack: makes a value of an answer's result.
        in_flight: most requests that are sent and not yet answered.
        timeout: seconds for the whole stream.
        stall: seconds without an answer, while requests are waiting, after which the service
            counts as dead.
    """

    def __init__(
        self,
        connection: Connection,
        method: str,
        call: Callable[..., Any],
        pack: Callable[[str, In], Any],
        unpack: Callable[[Any], Out],
        *,
        in_flight: int,
        timeout: float,
        stall: float,
    ) -> None:
        if in_flight < 1:
            raise InvalidInput(f"in_flight is {in_flight}, not 1 or more", field="in_flight")
        self._connection = connection
        self._method = method
        self._call = call
        self._pack = pack
        self._unpack = unpack
        self._timeout = timeout
        self._stall = stall
        self._places = asyncio.Semaphore(in_flight)
        self._awaited: set[str] = set()
        self._refused: list[tuple[str, TuneproofError]] = []
        self._input_failure: Exception | None = None
        self._last_event = 0.0
        self._over = False

    async def outcomes(self, inputs: Inputs[In]) -> AsyncIterator[tuple[str, Out | TuneproofError]]:
        """Yields each request's result or error, in the order in which they come.

        Raises:
            Unavailable: when the stream fails or stalls; what was not yielded was not answered.
            TuneproofError: other failures of the whole stream, as `Unauthenticated`.
            InvalidInput: when an id repeats, after the answers to what was sent before.
        """
        if isinstance(inputs, Mapping) and not inputs:
            return
        stream = self._call(self._requests(inputs), timeout=self._timeout)
        try:
            replies = aiter(stream)
            while (reply := await self._next(replies)) is not None:
                yield self._outcome(reply)
                while self._refused:
                    yield self._refused.pop()
        finally:
            stream.cancel()
            # gRPC does not end its reader of requests: one that waits for a place gets it here, and
            # ends.
            self._over = True
            self._places.release()
        while self._refused:
            yield self._refused.pop()
        if self._input_failure is not None:
            raise self._input_failure
        if self._awaited:
            raise Unavailable(
                f"{self._connection.peer} ended the call {self._method} with"
                f" {len(self._awaited)} requests not answered; ask again for those"
            )

    async def _requests(self, inputs: Inputs[In]) -> AsyncIterator[Any]:
        seen: set[str] = set()
        try:
            async for name, value in _pairs(inputs):
                if name in seen:
                    raise InvalidInput(f"two requests of one stream have the id {name!r}")  # noqa: TRY301
                seen.add(name)
                await self._places.acquire()
                if self._over:
                    return
                try:
                    message = self._pack(name, value)
                except TuneproofError as error:
                    self._refused.append((name, error))
                    self._places.release()
                    continue
                self._awaited.add(name)
                self._last_event = asyncio.get_running_loop().time()
                yield message
        except Exception as error:  # noqa: BLE001 - raised where the caller sees it, by outcomes
            self._input_failure = error

    async def _next(self, replies: AsyncIterator[Any]) -> Any:
        """The next answer, None after the last."""
        reading = asyncio.ensure_future(anext(replies, None))
        loop = asyncio.get_running_loop()
        self._last_event = loop.time()
        try:
            while not reading.done():
                left = self._last_event + self._stall - loop.time()
                if left <= 0 and self._awaited:
                    raise Unavailable(
                        f"{self._connection.peer} answered none of {len(self._awaited)} requests of"
                        f" {self._method} for {self._stall:g} s; see its log"
                    )
                await asyncio.wait({reading}, timeout=left if left > 0 else self._stall)
            with self._connection.errors(self._method):
                reply = reading.result()
        finally:
            reading.cancel()
        return reply

    def _outcome(self, reply: Any) -> tuple[str, Out | TuneproofError]:
        if reply.id not in self._awaited:
            raise Internal(
                f"{self._connection.peer} answered {reply.id!r} in {self._method}, a request that"
                " was not sent or has its answer already"
            )
        self._awaited.discard(reply.id)
        self._places.release()
        match reply.WhichOneof("outcome"):
            case "error":
                return reply.id, error_of(reply.error)
            case "result":
                try:
                    return reply.id, self._unpack(reply.result)
                except TuneproofError as error:
                    return reply.id, error
            case _:
                return reply.id, Internal(f"{self._connection.peer} gave an empty answer")


async def _pairs(inputs: Inputs[In]) -> AsyncIterator[tuple[str, In]]:
    if isinstance(inputs, Mapping):
        for pair in inputs.items():
            yield pair
    else:
        async for pair in inputs:
            yield pair
