"""For tests: a service in this process, with all that surrounds the calls of a real server, and
Secrets as Kubernetes mounts them."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tuneproof.servicekit.auth import Authenticator
from tuneproof.servicekit.calls import CallInterceptor, Limits
from tuneproof.servicekit.http_door import HttpDoor, serve_http
from tuneproof.servicekit.server import ConnectionAge, Service, add_port, make_server
from tuneproof.servicekit.tls import ServerTls

_MAX_MESSAGE_BYTES = 16 * 2**20


@asynccontextmanager
async def serving(
    service: Service,
    *,
    tokens: Authenticator | None = None,
    limits: Limits | None = None,
    age: ConnectionAge | None = None,
    tls: ServerTls | None = None,
) -> AsyncIterator[str]:
    """Serves on a free loopback port; gives the target `host:port`."""
    around = CallInterceptor(service.descriptors, tokens, limits or Limits())
    server = make_server(service, around, _MAX_MESSAGE_BYTES, age or ConnectionAge())
    port = add_port(server, "127.0.0.1:0", tls)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        around.end_watchers()
        await server.stop(0.5)


@asynccontextmanager
async def serving_http(
    door: HttpDoor,
    *,
    tokens: Authenticator | None = None,
    limits: Limits | None = None,
    tls: ServerTls | None = None,
    max_bytes: int = _MAX_MESSAGE_BYTES,
) -> AsyncIterator[str]:
    """Serves a service's HTTP door; gives its URL."""
    around = CallInterceptor([door.service], tokens, limits or Limits())
    async with serve_http(door, around, tls, max_bytes=max_bytes, drain_seconds=1) as url:
        yield url


def certificate_files(
    ca: Any, names: str | Sequence[str], *trusted: Any, **more: Any
) -> dict[str, bytes]:
    """A Secret as cert-manager writes it: a certificate, and the authorities to trust.

    Args:
        ca: a `trustme.CA` that signs.
        names: DNS names, or one name or address.
        trusted: those in `ca.crt`; by default the one that signs.
        more: for `issue_cert`.
    """
    leaf = ca.issue_cert(*([names] if isinstance(names, str) else names), **more)
    return {
        "tls.crt": leaf.cert_chain_pems[0].bytes(),
        "tls.key": leaf.private_key_pem.bytes(),
        "ca.crt": b"".join(each.cert_pem.bytes() for each in trusted or (ca,)),
    }


class MountedSecret:
    """A folder as the kubelet writes it: links lead through `..data` to the version that holds."""

    def __init__(self, folder: Path, files: Mapping[str, bytes]) -> None:
        self.folder = folder
        self._versions = 0
        folder.mkdir()
        self.change(files)
        for name in files:
            (folder / name).symlink_to(f"..data/{name}")

    def change(self, files: Mapping[str, bytes]) -> None:
        """All files at once."""
        before = self.folder / f"..{self._versions}"
        self._versions += 1
        version = self.folder / f"..{self._versions}"
        version.mkdir()
        for name, content in files.items():
            (version / name).write_bytes(content)
        link = self.folder / "..data_tmp"
        link.symlink_to(version.name)
        link.replace(self.folder / "..data")
        if before.exists():
            shutil.rmtree(before)
