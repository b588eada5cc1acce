"""A fake OCI registry at the wire, for tests: what adapters need of the distribution protocol.

It minds what the specification minds: digests, blobs that a manifest names, media types, tokens.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

_PATH = re.compile(r"/v2/(.+)/(blobs|manifests)/(uploads/)?(.*)")


class FakeRegistry(ThreadingHTTPServer):
    """A registry in this process.

    Args:
        login: `user:password` that it asks a token for; empty asks for none.
    """

    daemon_threads = True

    def __init__(self, login: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.login = login
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        """By repository and tag or digest, as `team/short:v1`."""
        self.uploads = 0
        """Blobs that were sent."""

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.server_address[1]}"


@contextmanager
def fake_registry(login: str = "") -> Iterator[FakeRegistry]:
    """A registry that runs until the context ends."""
    with FakeRegistry(login) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeRegistry

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - its name there
        """Keeps quiet."""

    def _handle(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        if url.path == "/token":
            self._give_token()
        elif not self._is_allowed():
            realm = f'http://{self.server.address}/token",service="fake'
            self._answer(401, b"", **{"WWW-Authenticate": f'Bearer realm="{realm}"'})
        elif match := _PATH.fullmatch(url.path):
            repository, kind, upload, name = match.groups()
            if kind == "manifests":
                self._manifest(repository, name, data)
            elif upload:
                self._upload(parse_qs(url.query).get("digest", [""])[0], data)
            else:
                self._blob(name)
        else:
            self._answer(404)

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815 - their names there

    def _give_token(self) -> None:
        wanted = f"Basic {base64.b64encode(self.server.login.encode()).decode()}"
        if self.headers.get("Authorization") != wanted:
            self._answer(401)
        else:
            self._answer(200, json.dumps({"token": self._token}).encode())

    @property
    def _token(self) -> str:
        return hashlib.sha256(self.server.login.encode()).hexdigest()

    def _is_allowed(self) -> bool:
        return not self.server.login or self.headers.get("Authorization") == f"Bearer {self._token}"

    def _upload(self, digest: str, data: bytes) -> None:
        if self.command == "POST":
            # Relative, and with a query of its own, as registries do.
            self._answer(202, Location=f"{urlsplit(self.path).path}one?state=x")
        elif digest != _digest(data):
            self._refuse(400, "DIGEST_INVALID")
        else:
            self.server.blobs[digest] = data
            self.server.uploads += 1
            self._answer(201)

    def _blob(self, digest: str) -> None:
        if digest in self.server.blobs:
            self._answer(200, self.server.blobs[digest])
        else:
            self._refuse(404, "BLOB_UNKNOWN")

    def _manifest(self, repository: str, name: str, data: bytes) -> None:
        held = self.server.manifests
        if self.command != "PUT":
            found = held.get(f"{repository}:{name}")
            if found is None:
                self._refuse(404, "MANIFEST_UNKNOWN")
            else:
                self._answer(200, found, **{"Content-Type": self.headers.get("Accept", "")})
            return
        told = json.loads(data)
        if told["mediaType"] != self.headers.get("Content-Type"):
            self._refuse(400, "MANIFEST_INVALID")
        elif any(
            len(self.server.blobs.get(each["digest"], b"")) != each["size"]
            for each in [told["config"], *told["layers"]]
        ):
            self._refuse(404, "MANIFEST_BLOB_UNKNOWN")
        else:
            held[f"{repository}:{name}"] = held[f"{repository}:{_digest(data)}"] = data
            self._answer(201, b"", **{"Docker-Content-Digest": _digest(data)})

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, json.dumps({"errors": [{"code": code, "message": "no"}]}).encode())

    def _answer(self, status: int, data: bytes = b"", /, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
