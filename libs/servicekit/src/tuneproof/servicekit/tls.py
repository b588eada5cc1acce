"""TLS from a folder in cert-manager's layout: `tls.crt`, `tls.key` and `ca.crt`.

    CertificateFolder   reads the three files, again when they change
    |- ServerTls        gRPC servers and HTTP servers
    `- ClientTls        gRPC channels and HTTP clients

Certificates are rotated while connections stay: each new handshake uses what the files hold then. A
mounted Secret changes all its files at once, by swapping the link `..data`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc

from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.reloading import Reloaded

CERTIFICATE, KEY, AUTHORITIES = "tls.crt", "tls.key", "ca.crt"
_VERSION = "..data"


@dataclass(frozen=True)
class Pem:
    """One version of the files; None for a file that is not there."""

    certificate: bytes | None
    key: bytes | None
    authorities: bytes | None
    context: ssl.SSLContext
    """The same for HTTP."""


class CertificateFolder:
    """The files of a folder at this moment.

    Args:
        folder: holds them; a mounted Secret, for example.
        protocol: `ssl.PROTOCOL_TLS_SERVER` or `ssl.PROTOCOL_TLS_CLIENT`.
        needed: names of the files without which the folder is refused.
        verified: whether the other side must show a certificate of `ca.crt`.

    Raises:
        InvalidInput: a file is missing, is not PEM, or the key is not the certificate's.
    """

    def __init__(
        self, folder: Path, protocol: ssl._SSLMethod, *, needed: set[str], verified: bool
    ) -> None:
        self._folder = folder
        self._protocol = protocol
        self._needed = needed
        self._verified = verified
        files = [folder / name for name in (CERTIFICATE, KEY, AUTHORITIES)]
        self._read_again = Reloaded(files, self._read)

    def now(self) -> Pem:
        """The files as they are, or the last ones that could be used."""
        return self._read_again.now()

    def context(self) -> ssl.SSLContext:
        """For HTTP; uses for each connection what the files hold when it is made."""
        return ContextOfMoment.made(self._protocol, lambda: self.now().context)

    def _read(self) -> Pem:
        # All three of one version, also while the link is swapped.
        version = self._folder / _VERSION
        folder = version.resolve() if version.exists() else self._folder
        try:
            found = {name: _content(folder / name) for name in (CERTIFICATE, KEY, AUTHORITIES)}
            needed = self._needed | ({KEY} if found[CERTIFICATE] is not None else set())
            if missing := sorted(name for name in needed if found[name] is None):
                raise InvalidInput(
                    f"{self._folder} lacks {' and '.join(missing)}; a Secret of cert-manager has"
                    f" {CERTIFICATE}, {KEY} and {AUTHORITIES}"
                )
            context = self._context(folder, found)
        except ssl.SSLError as error:
            raise InvalidInput(
                f"the certificates in {self._folder} cannot be used: {error.reason or error}"
            ) from None
        except OSError as error:
            raise InvalidInput(f"cannot read {error.filename}: {error.strerror}") from None
        return Pem(found[CERTIFICATE], found[KEY], found[AUTHORITIES], context)

    def _context(self, folder: Path, found: dict[str, bytes | None]) -> ssl.SSLContext:
        context = ssl.SSLContext(self._protocol)
        if self._protocol == ssl.PROTOCOL_TLS_SERVER:
            # Without tickets no client comes back by a certificate that has expired since.
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.num_tickets = 0
        if self._verified:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(folder / AUTHORITIES)
        if found[CERTIFICATE] is not None:
            context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
        return context


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


class ContextOfMoment(ssl.SSLContext):
    """A context that asks for the right one whenever a connection is wrapped."""

    _current: Callable[[], ssl.SSLContext]

    @classmethod
    def made(cls, protocol: ssl._SSLMethod, current: Callable[[], ssl.SSLContext]) -> Self:
        """A context that uses what `current` gives."""
        context = cls(protocol)
        context._current = current
        return context

    def wrap_bio(self, *given: Any, **more: Any) -> ssl.SSLObject:
        """As asyncio and uvloop wrap."""
        return self._current().wrap_bio(*given, **more)

    def wrap_socket(self, *given: Any, **more: Any) -> ssl.SSLSocket:
        """As servers of the standard library wrap."""
        return self._current().wrap_socket(*given, **more)


class ServerTls:
    """What servers show, and what they demand of clients.

    Args:
        client_certificates: refuse clients without a certificate of `ca.crt` (mTLS).

    Raises:
        InvalidInput: the folder cannot be used.
    """

    def __init__(self, folder: Path, *, client_certificates: bool) -> None:
        needed = {CERTIFICATE, KEY} | ({AUTHORITIES} if client_certificates else set())
        self._verified = client_certificates
        self._files = CertificateFolder(
            folder, ssl.PROTOCOL_TLS_SERVER, needed=needed, verified=client_certificates
        )

    def context(self) -> ssl.SSLContext:
        """For HTTP servers."""
        return self._files.context()

    def credentials(self) -> grpc.ServerCredentials:
        """For gRPC servers."""
        shown = self._files.now()

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal shown
            if (pem := self._files.now()) is shown:
                return None
            shown = pem
            return self._configuration(pem)

        return grpc.dynamic_ssl_server_credentials(
            self._configuration(shown),
            # None for no change, which the stubs lack.
            changed,  # type: ignore[arg-type]
            require_client_authentication=self._verified,
        )

    def _configuration(self, pem: Pem) -> grpc.ServerCertificateConfiguration:
        pair = (pem.key or b"", pem.certificate or b"")
        return grpc.ssl_server_certificate_configuration(
            [pair], root_certificates=pem.authorities if self._verified else None
        )


class ClientTls:
    """Which authorities a client trusts, and the certificate that it shows if asked.

    Args:
        folder: holds `ca.crt`; with mTLS also `tls.crt` and `tls.key`.
        server_name: the name in the server's certificate, where it is not the host of the address.

    Raises:
        InvalidInput: the folder cannot be used.
    """

    def __init__(self, folder: Path, *, server_name: str = "") -> None:
        self.server_name = server_name
        self._files = CertificateFolder(
            folder, ssl.PROTOCOL_TLS_CLIENT, needed={AUTHORITIES}, verified=True
        )

    def named(self, server_name: str) -> ClientTls:
        """The same with another name in the server's certificate."""
        found = copy(self)
        found.server_name = server_name
        return found

    def now(self) -> Pem:
        """The files as they are; the same object until they change."""
        return self._files.now()

    def context(self) -> ssl.SSLContext:
        """For HTTP clients."""
        return self._files.context()
