"""A channel whose certificates change while it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from tuneproof.servicekit.tls import ClientTls, Pem


def _calls(kind: str) -> Any:
    def calls(self: SecureChannel, *method: Any, **more: Any) -> Callable[..., Any]:
        def call(*request: Any, **settings: Any) -> Any:
            return getattr(self.now(), kind)(*method, **more)(*request, **settings)

        return call

    return calls


class SecureChannel(grpc.aio.Channel):
    """Calls over TLS; after the files changed, new calls take a new connection.

    gRPC (1.78, Python) reads a channel's certificates only once, so a new channel takes over.
    Calls of the old one end on it. An idle channel closes its connections itself.

    Args:
        make: a channel with these credentials.
    """

    unary_unary = _calls("unary_unary")
    unary_stream = _calls("unary_stream")
    stream_unary = _calls("stream_unary")
    stream_stream = _calls("stream_stream")

    def __init__(
        self, tls: ClientTls, make: Callable[[grpc.ChannelCredentials], grpc.aio.Channel]
    ) -> None:
        self._tls = tls
        self._make = make
        self._pem: Pem | None = None
        self._channels: list[grpc.aio.Channel] = []
        self.now()

    def now(self) -> grpc.aio.Channel:
        """The channel for a call that begins now."""
        if (pem := self._tls.now()) is not self._pem:
            self._pem = pem
            credentials = grpc.ssl_channel_credentials(pem.authorities, pem.key, pem.certificate)
            self._channels.append(self._make(credentials))
        return self._channels[-1]

    async def __aenter__(self) -> SecureChannel:
        return self

    async def __aexit__(self, *ended: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Closes the channel; the old ones too."""
        for channel in self._channels:
            await channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Of the channel in use."""
        return self.now().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Of the channel in use."""
        await self.now().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Waits for a connection."""
        await self.now().channel_ready()
