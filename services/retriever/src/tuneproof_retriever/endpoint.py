"""Asking a server of models: requests in flight, time limits, attempts, what failures mean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tuneproof.servicekit.errors import InvalidInput, Overloaded, Unavailable, WrongState
from tuneproof.servicekit.http import retry_after, without_credentials
from tuneproof.servicekit.retries import Retries, Sleep

T = TypeVar("T")

_RETRIES = Retries(first=0.1, longest=5.0)
_WITHOUT_DEADLINE_SECONDS = 60.0
_SHOWN = 300


@dataclass(frozen=True)
class Endpoint:
    """A server of models, and how hard it may be pressed."""

    kind: str
    """What it is, as messages name it."""
    url: str
    """Its base URL."""
    api_key: str = field(default="", repr=False)
    key_variable: str = ""
    """Environment variable of the key, for messages."""
    concurrency: int = 8
    """Requests in flight."""
    request_timeout: float = 30.0
    """Seconds for one request, body included."""

    @property
    def shown(self) -> str:
        """Its name in messages."""
        return f"{self.kind} at {without_credentials(self.url)}"

    def failure(self, status: int, said: str, headers: Any = None) -> Exception:
        """What an HTTP status means."""
        told = f"HTTP {status}: {said.strip()[:_SHOWN]}"
        if status in (401, 403):
            return WrongState(
                f"{self.shown} does not accept the key ({told}); set {self.key_variable} and"
                " restart the retriever",
                reason="ENDPOINT_KEY_REFUSED",
            )
        if status == 404:
            return WrongState(
                f"{self.shown} does not know the path or the model ({told}); compare the URL and"
                " the model's name with the server's own",
                reason="ENDPOINT_NOT_FOUND",
            )
        if status in (400, 413, 422):
            return InvalidInput(f"{self.shown} refuses the texts ({told})")
        if status == 429:
            asked = retry_after(headers.get("retry-after", "")) if headers else None
            return Overloaded(f"{self.shown} is overloaded ({told})", retry_after=asked)
        return Unavailable(f"{self.shown} fails ({told})")

    def silence(self, error: BaseException) -> Unavailable:
        """A connection that was refused, or ended before the answer."""
        words = str(error) or type(error).__name__
        return Unavailable(f"{self.shown} does not answer ({words[:_SHOWN]}); is it up?")


class Requests:
    """Sends requests to an endpoint, again while it is overloaded or away.

    Only what is safe to repeat may be sent.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        translate: Callable[[Exception], Exception],
        *,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """
        Args:
            translate: gives the domain's error for one of the client library.
        """
        self._endpoint = endpoint
        self._translate = translate
        self._sleep = sleep
        self._most = endpoint.concurrency
        self._slots = asyncio.Semaphore(self._most)

    def limit(self, concurrency: int) -> None:
        """Lowers the number of requests in flight, before the first request."""
        self._most = max(1, min(concurrency, self._endpoint.concurrency))
        self._slots = asyncio.Semaphore(self._most)

    async def send(self, action: Callable[[], Awaitable[T]], *, deadline: float | None = None) -> T:
        """The result of a request, repeated up to the deadline.

        Args:
            deadline: the event loop's time; None: a minute from now.

        Raises:
            InvalidInput: when the server refuses what was sent.
            WrongState: when no request can succeed before somebody corrects the set-up.
            Overloaded: when it still has too many requests at the deadline, or this process has
                all in flight that it may.
            Unavailable: when it does not answer until then.
        """
        clock = asyncio.get_running_loop().time
        end = clock() + _WITHOUT_DEADLINE_SECONDS if deadline is None else deadline

        async def attempt() -> T:
            # Held during a request only: one that waits for its next attempt blocks no other.
            async with self._slot(end):
                return await self.once(action, end - clock())

        return await _RETRIES.call(attempt, timeout=end - clock(), sleep=self._sleep)

    @asynccontextmanager
    async def _slot(self, end: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout_at(end):
                await self._slots.acquire()
        except TimeoutError:
            raise Overloaded(
                f"{self._endpoint.shown} was busy with {self._most} other requests of this"
                " retriever until the deadline"
            ) from None
        try:
            yield
        finally:
            self._slots.release()

    async def once(self, action: Callable[[], Awaitable[T]], seconds: float) -> T:
        """The result of one request; see `send` for the errors."""
        seconds = min(self._endpoint.request_timeout, max(seconds, 0.0))
        try:
            # A client's own time-out is per read; a server that drips never reaches it.
            async with asyncio.timeout(seconds) as limit:
                return await action()
        except TimeoutError as error:
            if not limit.expired():
                raise self._endpoint.silence(error) from None
            raise Unavailable(
                f"{self._endpoint.shown} did not answer within {seconds:.3g} s"
            ) from None
        except Exception as error:  # noqa: BLE001 - goes on, translated
            raise self._translate(error) from None


async def all_of(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of work that runs concurrently; the first failure ends the rest."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
