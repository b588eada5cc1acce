"""Whether a service knows every call and field of this client's contract.

A server that is newer than the client answers it as before. One that is older would ignore fields
that it does not know, without a word: so it is asked for its contract, by gRPC's reflection.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tuneproof.servicekit.errors import Unavailable, WrongState
from tuneproof.servicekit.tls import ClientTls

_SECONDS = 20.0
_SHOWN = 3


def check_contract(
    contract: FileDescriptor, target: str, tls: ClientTls | None, peer: str, version: str
) -> None:
    """Compares the contract of a service with this client's.

    Args:
        peer: the service, for messages, as `the judge (tuneproof/judge:0.1.0)`.
        version: of this client.

    Raises:
        WrongState: the service lacks something.
        Unavailable: it does not answer.
    """
    mine = FileDescriptorProto()
    contract.CopyToProto(mine)
    (symbol, *_) = (f"{mine.package}.{service.name}" for service in mine.service)
    try:
        theirs = _contract_of(target, tls, symbol, mine.name)
    except grpc.RpcError as error:
        raise Unavailable(f"{peer} cannot be reached: {error.details()}") from None
    lacks = list(missing(mine, theirs))
    if lacks:
        more = f" and {len(lacks) - _SHOWN} more" if len(lacks) > _SHOWN else ""
        raise WrongState(
            f"{peer} is older than this client, tuneproof {version}: it lacks"
            f" {', '.join(lacks[:_SHOWN])}{more}. Upgrade the cluster, or install the client of its"
            " version"
        )


def missing(mine: FileDescriptorProto, theirs: FileDescriptorProto) -> Iterator[str]:
    """Calls and fields of one contract that another one lacks."""
    services = {one.name: {method.name for method in one.method} for one in theirs.service}
    for service in mine.service:
        known = services.get(service.name, set())
        yield from (f"{service.name}.{one.name}" for one in service.method if one.name not in known)
    yield from _missing_fields(mine.message_type, theirs.message_type, "")


def _missing_fields(
    mine: Iterable[DescriptorProto], theirs: Iterable[DescriptorProto], prefix: str
) -> Iterator[str]:
    known = {message.name: message for message in theirs}
    for message in mine:
        name = f"{prefix}{message.name}"
        other = known.get(message.name)
        if other is None:
            yield name
            continue
        fields = {(field.name, field.number) for field in other.field}
        yield from (
            f"{name}.{one.name}" for one in message.field if (one.name, one.number) not in fields
        )
        yield from _missing_fields(message.nested_type, other.nested_type, f"{name}.")


def _contract_of(target: str, tls: ClientTls | None, symbol: str, file: str) -> FileDescriptorProto:
    with _channel(target, tls) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
        calls = stub.ServerReflectionInfo(iter([request]), timeout=_SECONDS)
        reply = next(iter(calls))
    for content in reply.file_descriptor_response.file_descriptor_proto:
        found = FileDescriptorProto.FromString(content)
        if found.name == file:
            return found
    return FileDescriptorProto()


def _channel(target: str, tls: ClientTls | None) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(target)
    pem = tls.now()
    credentials = grpc.ssl_channel_credentials(pem.authorities, pem.key, pem.certificate)
    named = [("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else []
    return grpc.secure_channel(target, credentials, options=named)
