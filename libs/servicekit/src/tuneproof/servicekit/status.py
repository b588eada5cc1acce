"""The one table between tuneproof's errors and gRPC status codes."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from tuneproof.servicekit import errors

_DOMAIN = "tuneproof"
_TRAILER = "grpc-status-details-bin"
_PUSHBACK = "grpc-retry-pushback-ms"
"""Tells gRPC's retrying clients how long to wait; a negative number means: do not retry."""
_LONGEST_PUSHBACK_SECONDS = 3.0
"""Longer pauses are left to the caller: within a call they look like a hang, and the server has
already retried what fails for so long, so a client's retries would multiply."""

_CODES: dict[type[errors.TuneproofError], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
    errors.Corrupted: grpc.StatusCode.DATA_LOSS,
    errors.Internal: grpc.StatusCode.INTERNAL,
}
_ERRORS = {code.value[0]: error for error, code in _CODES.items()}
_GRPC_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def status_of(error: BaseException) -> status_pb2.Status:
    """The google.rpc.Status of an error.

    A foreign error becomes INTERNAL with its type only: its text may hold what a caller must not
    see, and belongs in the log.
    """
    if isinstance(error, TimeoutError):
        error = errors.DeadlineExceeded("the deadline passed before the work was done")
    if not isinstance(error, errors.TuneproofError):
        error = errors.Internal(f"internal error ({type(error).__name__}); the log tells more")
    code = next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)
    return status_pb2.Status(code=code.value[0], message=error.message, details=_details(error))


def error_of(status: status_pb2.Status) -> errors.TuneproofError:
    """The error of a google.rpc.Status: the way back on the client's side."""
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        for known in (info, request, retry):
            if detail.Is(known.DESCRIPTOR):
                detail.Unpack(known)
    kind = _ERRORS.get(status.code, errors.Internal)
    text = status.message or code_pb2.Code.Name(code_pb2.Code.ValueType(status.code))
    error = kind(text, reason=info.reason, **dict(info.metadata))
    if isinstance(error, errors.InvalidInput) and request.field_violations:
        error.field = request.field_violations[0].field
    if isinstance(error, errors.Overloaded | errors.Unavailable) and retry.HasField("retry_delay"):
        error.retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    return error


def error_of_call(failure: grpc.aio.AioRpcError) -> errors.TuneproofError:
    """The error of a failed call, with the details that the server sent."""
    for key, value in failure.trailing_metadata() or ():
        if key == _TRAILER and isinstance(value, bytes):
            return error_of(status_pb2.Status.FromString(value))
    return error_of(
        status_pb2.Status(code=failure.code().value[0], message=failure.details() or "")
    )


def has_details(failure: grpc.aio.AioRpcError) -> bool:
    """Whether the server's own code gave the status; else gRPC did, on either side."""
    return any(key == _TRAILER for key, _ in failure.trailing_metadata() or ())


async def abort(context: grpc.aio.ServicerContext, status: status_pb2.Status) -> None:  # type: ignore[type-arg]
    """Ends a call with a status and its details."""
    trailers: list[tuple[str, str | bytes]] = [(_TRAILER, status.SerializeToString())]
    retry_after = getattr(error_of(status), "retry_after", None)
    if retry_after is not None:
        pushback = int(retry_after * 1000) if retry_after <= _LONGEST_PUSHBACK_SECONDS else -1
        trailers.append((_PUSHBACK, str(pushback)))
    await context.abort(_GRPC_CODES[status.code], status.message, trailing_metadata=tuple(trailers))


def _details(error: errors.TuneproofError) -> Sequence[any_pb2.Any]:
    found: list[message.Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=_DOMAIN, metadata=error.metadata)
    ]
    if isinstance(error, errors.InvalidInput) and error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message
        )
        found.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.Overloaded | errors.Unavailable) and error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        found.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = [any_pb2.Any() for _ in found]
    for wrapper, detail in zip(packed, found, strict=True):
        wrapper.Pack(detail)
    return packed
