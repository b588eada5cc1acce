"""What happens around every call: authorisation, errors to statuses, metrics, logs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, status_pb2
from prometheus_client import Counter, Gauge, Histogram

from tuneproof.servicekit import tracing
from tuneproof.servicekit.auth import Authenticator, authorization_of, role_needed, set_caller
from tuneproof.servicekit.call_spans import end_served, start_served
from tuneproof.servicekit.errors import (
    Internal,
    InvalidInput,
    Overloaded,
    TuneproofError,
    Unavailable,
)
from tuneproof.servicekit.status import abort, status_of

Context = grpc.aio.ServicerContext[Any, Any]

CALLS = Counter("tuneproof_rpc_calls", "Calls that ended.", ["service", "method", "code"])
SECONDS = Histogram(
    "tuneproof_rpc_seconds",
    "Time from a call's start to its end, in seconds.",
    ["service", "method"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
IN_FLIGHT = Gauge("tuneproof_rpc_in_flight", "Calls under way.", ["service", "method"])

_OVERLOAD_RETRY_SECONDS = 1.0
_ENDING = "the server is ending; watch again at another one"
_log = structlog.get_logger("tuneproof.call")


@dataclass(frozen=True, slots=True)
class Limits:
    """How many calls a server runs at the same time."""

    calls: int = 256
    """Calls; a batch stream counts as one."""
    watchers: int = 128
    """Watch streams, counted apart: they live long and work little."""


class CallFailed(Exception):
    """What a door tells the caller, in its own way."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Surrounds the calls of the given services; reflection and health pass unchanged."""

    def __init__(
        self,
        services: Sequence[ServiceDescriptor],
        authenticator: Authenticator | None,
        limits: Limits = Limits(),
    ) -> None:
        self._authenticator = authenticator
        self._limits = {False: limits.calls, True: limits.watchers}
        self._running = {False: 0, True: 0}
        self._watching: set[asyncio.Task[Any]] = set()
        self._ending = asyncio.Event()
        self._methods: dict[str, MethodDescriptor] = {
            f"/{service.full_name}/{method.name}": method
            for service in services
            for method in service.methods
        }

    @property
    def authenticates(self) -> bool:
        """Whether calls need a token."""
        return self._authenticator is not None

    def end_watchers(self) -> None:
        """Ends the watch streams, which would outlast any drain, and refuses new ones."""
        self._ending.set()
        for task in self._watching:
            task.cancel()

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        method = self._methods.get(handler_call_details.method)
        if handler is None or method is None:
            return handler
        return self._surround(handler, method)

    def _surround(
        self, handler: grpc.RpcMethodHandler[Any, Any], method: MethodDescriptor
    ) -> grpc.RpcMethodHandler[Any, Any]:
        read = cast("Callable[[bytes], Any]", handler.request_deserializer)
        # Messages are read in the call: gRPC answers one that it cannot read with UNKNOWN.
        given = partial(_each if handler.request_streaming else _read, read)

        async def one(request: Any, context: Context) -> Any:
            async with self._call(method, context):
                behaviour = cast(Any, handler.unary_unary or handler.stream_unary)
                return await behaviour(given(request), context)

        async def many(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._call(method, context):
                behaviour = cast(Any, handler.unary_stream or handler.stream_stream)
                responses = behaviour(given(request), context)
                if _watches(method):
                    responses = self._until_the_end(responses)
                async for response in responses:
                    yield response

        kinds: dict[tuple[bool, bool], tuple[Any, Any]] = {
            (False, False): (grpc.unary_unary_rpc_method_handler, one),
            (True, False): (grpc.stream_unary_rpc_method_handler, one),
            (False, True): (grpc.unary_stream_rpc_method_handler, many),
            (True, True): (grpc.stream_stream_rpc_method_handler, many),
        }
        make, behaviour = kinds[handler.request_streaming, handler.response_streaming]
        return cast(
            "grpc.RpcMethodHandler[Any, Any]",
            make(behaviour, None, handler.response_serializer),
        )

    @asynccontextmanager
    async def _call(self, method: MethodDescriptor, context: Context) -> AsyncIterator[None]:
        try:
            async with self.around(method, context.invocation_metadata() or ()):
                yield
        except CallFailed as failed:
            await abort(context, failed.status)

    @asynccontextmanager
    async def around(
        self, method: MethodDescriptor, metadata: Iterable[tuple[str, str | bytes]]
    ) -> AsyncIterator[None]:
        """Surrounds one call, by whichever door it comes.

        Args:
            metadata: the call's headers, their names in lower case.

        Raises:
            CallFailed: the call is refused or fails.
        """
        labels = (method.containing_service.full_name, method.name)
        watches = _watches(method)
        start = time.perf_counter()
        code, why = "OK", ""
        traced = start_served("/".join(labels), metadata) if tracing.is_on() else None
        IN_FLIGHT.labels(*labels).inc()
        self._running[watches] += 1
        try:
            if self._authenticator is not None:
                authorization, needs = authorization_of(metadata), role_needed(method)
                set_caller(await self._authenticator.check(authorization, needs=needs))
            self._admit(watches)
            yield
        except (asyncio.CancelledError, GeneratorExit):
            code = "CANCELLED"
            raise
        except grpc.aio.AbortError:
            code = "UNKNOWN"
            raise
        except Exception as error:
            if not isinstance(error, TuneproofError | TimeoutError) or isinstance(error, Internal):
                _log.exception("call failed", method=method.full_name)
            status = status_of(error)
            code, why = code_pb2.Code.Name(status.code), status.message
            raise CallFailed(status) from error
        finally:
            seconds = time.perf_counter() - start
            self._running[watches] -= 1
            IN_FLIGHT.labels(*labels).dec()
            SECONDS.labels(*labels).observe(seconds)
            CALLS.labels(*labels, code).inc()
            if traced is not None:
                end_served(traced, code, why)
            _log.debug("call", method=method.full_name, code=code, seconds=round(seconds, 4))

    def _admit(self, watches: bool) -> None:
        limit = self._limits[watches]
        if watches and self._ending.is_set():
            raise Unavailable(_ENDING)
        if self._running[watches] > limit:
            kind = "watch streams" if watches else "calls"
            raise Overloaded(
                f"{limit} {kind} are running, the most that this server takes;"
                f" try again in {_OVERLOAD_RETRY_SECONDS:.0f} s",
                retry_after=_OVERLOAD_RETRY_SECONDS,
            )

    async def _until_the_end(self, responses: AsyncGenerator[Any, None]) -> AsyncIterator[Any]:
        """A watch stream that `end_watchers` ends.

        It is cancelled only while it waits: gRPC loses a cancellation that meets it in sending, and
        the call never ends.
        """
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        async with aclosing(responses):
            while not self._ending.is_set():
                self._watching.add(task)
                try:
                    response = await anext(responses)
                except StopAsyncIteration:
                    return
                except asyncio.CancelledError:
                    if not self._ending.is_set():
                        raise
                    task.uncancel()
                    break
                finally:
                    self._watching.discard(task)
                yield response
        raise Unavailable(_ENDING)


def _watches(method: MethodDescriptor) -> bool:
    return method.name.startswith("Watch")


def _read(read: Callable[[bytes], Any], raw: bytes) -> Any:
    try:
        return read(raw)
    except DecodeError:
        raise InvalidInput(
            "the request is not a message of the contract; is a text in it not UTF-8?"
        ) from None


async def _each(read: Callable[[bytes], Any], messages: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for raw in messages:
        yield _read(read, raw)
