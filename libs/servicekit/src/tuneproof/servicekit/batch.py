"""Answering the items of a bidirectional stream independently, many at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import structlog
from google.rpc import status_pb2

from tuneproof.servicekit.errors import TuneproofError
from tuneproof.servicekit.status import status_of
from tuneproof.servicekit.tracing import span

Request = TypeVar("Request")
Response = TypeVar("Response")

_log = structlog.get_logger(__name__)


async def answer_each(
    requests: AsyncIterator[Request],
    answer: Callable[[Request], Awaitable[Response]],
    refuse: Callable[[Request, status_pb2.Status], Response],
    *,
    concurrency: int,
) -> AsyncIterator[Response]:
    """Yields a response for every request, in the order in which they are done.

    A request whose answer raises becomes `refuse(request, status)` and ends nothing else. At most
    `concurrency` requests are under way or read ahead, so that a slow consumer slows the
    producer. When the stream is cancelled, so is all work.
    """
    done: asyncio.Queue[Response | None] = asyncio.Queue()
    places = asyncio.Semaphore(concurrency)

    async def answer_one(request: Request) -> None:
        try:
            with span("item", {"tuneproof.item": str(getattr(request, "id", ""))}):
                response = await answer(request)
            done.put_nowait(response)
        except Exception as error:  # noqa: BLE001 - one bad item never ends the stream
            if not isinstance(error, TuneproofError | TimeoutError):
                _log.exception("item failed", error=type(error).__name__)
            done.put_nowait(refuse(request, status_of(error)))

    async def read() -> None:
        incoming = aiter(requests)
        async with asyncio.TaskGroup() as answers:
            while True:
                await places.acquire()
                try:
                    request = await anext(incoming)
                except StopAsyncIteration:
                    break
                answers.create_task(answer_one(request))
        done.put_nowait(None)

    reader = asyncio.create_task(read())
    reader.add_done_callback(lambda _: done.put_nowait(None))
    try:
        while (response := await done.get()) is not None:
            yield response
            places.release()
        await reader
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
