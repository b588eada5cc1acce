"""A channel to one service, and what its failures mean to a caller."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor

from tuneproof.sdk.endpoints import variable_of
from tuneproof.servicekit.client import Token, connect, typed_errors
from tuneproof.servicekit.errors import Unavailable
from tuneproof.servicekit.tls import ClientTls


class Connection:
    """One service's channel.

    Args:
        service: name for messages, as `retriever`.
        target: `host:port`, or a name for several addresses, as `dns:///host:port`.
        services: of the contract, whose idempotent calls are retried.
        tls: encrypts; None sends everything in plaintext.

    Raises:
        Unavailable: when the target is empty.
    """

    def __init__(
        self,
        service: str,
        target: str,
        *,
        token: Token | None,
        services: Iterable[ServiceDescriptor],
        tls: ClientTls | None = None,
    ) -> None:
        if not target:
            raise Unavailable(f"no address of the {service} is given; it is written HOST:PORT")
        self._service = service
        self._target = target
        self.channel = connect(target, token=token, tls=tls, services=tuple(services))

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


def seconds_of(stage_times: Iterable[Any]) -> dict[str, float]:
    """Seconds by stage, of a reply's stage times; a stage that is listed twice adds up."""
    seconds: dict[str, float] = {}
    for entry in stage_times:
        spent = entry.duration.ToTimedelta().total_seconds()
        seconds[entry.stage] = seconds.get(entry.stage, 0.0) + spent
    return seconds
