"""The part of the OCI distribution protocol that adapters need, over HTTP.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md; tokens as in
https://distribution.github.io/distribution/spec/auth/token/.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urljoin
from urllib.request import Request, urlopen

from tuneproof.servicekit.errors import (
    Corrupted,
    Forbidden,
    InvalidInput,
    NotFound,
    TuneproofError,
    Unauthenticated,
    Unavailable,
)

_SECONDS = 60.0
_CHUNK = 1 << 20
_LOCAL = frozenset({"localhost", "127.0.0.1"})
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_ERRORS: dict[int, type[TuneproofError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    429: Unavailable,
}


class OciHttp:
    """One repository of a registry.

    Each call raises Unauthenticated or Forbidden when the registry wants other credentials, and
    Unavailable when it does not answer.

    Args:
        host: `host[:port]`; HTTPS, except to this machine.
        writes: whether a token must allow to push.
    """

    def __init__(self, host: str, repository: str, *, writes: bool = False) -> None:
        scheme = "http" if host.partition(":")[0] in _LOCAL else "https"
        self._host = host
        self._root = f"{scheme}://{host}/v2/{repository}"
        self._scope = f"repository:{repository}:pull{',push' if writes else ''}"
        self._authorization = ""

    def put_blob(self, digest: str, content: Path | bytes) -> None:
        """Uploads content that has this digest, unless it is there."""
        try:
            self._ask("HEAD", f"{self._root}/blobs/{digest}").close()
        except NotFound:
            pass
        else:
            return
        with self._ask("POST", f"{self._root}/blobs/uploads/", data=b"") as answer:
            place = urljoin(self._root, answer.headers["Location"])
        to = f"{place}{'&' if '?' in place else '?'}{urlencode({'digest': digest})}"
        kind = {"Content-Type": "application/octet-stream"}
        if isinstance(content, bytes):
            self._ask("PUT", to, data=content, **kind).close()
            return
        with content.open("rb") as file:
            kind["Content-Length"] = str(content.stat().st_size)
            self._ask("PUT", to, data=file, **kind).close()

    def put_manifest(self, tag: str, data: bytes, kind: str) -> None:
        """Names an artifact, whose blobs are there."""
        self._ask(
            "PUT", f"{self._root}/manifests/{tag}", data=data, **{"Content-Type": kind}
        ).close()

    def manifest(self, wanted: str, kind: str, limit: int) -> bytes:
        """An artifact's manifest by tag or digest. Raises NotFound, and Corrupted above a limit."""
        with self._ask("GET", f"{self._root}/manifests/{wanted}", Accept=kind) as answer:
            data = answer.read(limit + 1)
        if len(data) > limit:
            raise Corrupted(f"the manifest {wanted} at {self._root} is larger than {limit} bytes")
        return data

    def blob(self, digest: str, size: int, target: Path) -> None:
        """Downloads a blob. Raises NotFound, and Corrupted when it is not what the digest says."""
        seen, left = hashlib.sha256(), size
        with self._ask("GET", f"{self._root}/blobs/{digest}") as answer, target.open("wb") as file:
            try:
                while left >= 0 and (part := answer.read(min(_CHUNK, left + 1))):
                    left -= len(part)
                    seen.update(part)
                    file.write(part)
            except (OSError, HTTPException) as error:
                raise Unavailable(f"{self._host} stopped in mid-answer: {error}") from error
        if left or f"sha256:{seen.hexdigest()}" != digest:
            raise Corrupted(f"the blob {digest} from {self._host} is not what its digest says")

    def _ask(
        self, method: str, url: str, *, data: bytes | IO[bytes] | None = None, **headers: str
    ) -> HTTPResponse:
        """One request; once more after the registry has said which token it wants."""
        try:
            return self._open(method, url, data, headers)
        except HTTPError as error:
            refusal = error
        if refusal.code == 401 and self._authorize(refusal.headers.get("WWW-Authenticate", "")):
            if data is not None and not isinstance(data, bytes):
                data.seek(0)
            try:
                return self._open(method, url, data, headers)
            except HTTPError as error:
                refusal = error
        kind = _ERRORS.get(refusal.code, Unavailable if refusal.code >= 500 else InvalidInput)
        advice = " (docker login, or oras login, writes credentials)" if refusal.code == 401 else ""
        raise kind(
            f"{self._host} answers {refusal.code} to {method} {url}: {_said(refusal)}{advice}"
        ) from None

    def _open(
        self, method: str, url: str, data: bytes | IO[bytes] | None, headers: dict[str, str]
    ) -> HTTPResponse:
        request = Request(url, data=data, headers=headers, method=method)  # noqa: S310 - http(s)
        if self._authorization and url.startswith(self._root.split("/v2/")[0]):
            # Never to where the registry redirects, as to a bucket.
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            answer: HTTPResponse = urlopen(request, timeout=_SECONDS)  # noqa: S310
        except HTTPError:
            raise
        except (URLError, OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise Unavailable(f"the registry {self._host} does not answer: {reason}") from error
        return answer

    def _authorize(self, challenge: str) -> bool:
        """Gets what a challenge asks for; whether there is something new to try."""
        before, secret = self._authorization, _credentials(self._host)
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "basic":
            self._authorization = f"Basic {secret}" if secret else ""
        elif kind.lower() == "bearer":
            asked = dict(_PARAMETER.findall(rest))
            realm = asked.pop("realm", "")
            # Credentials go there: in the clear only where the registry itself is asked so.
            if not realm.startswith(("https://", self._root[: self._root.index(":")] + "://")):
                return False
            query = urlencode({"scope": self._scope, **asked})
            request = Request(f"{realm}?{query}")  # noqa: S310 - see above
            if secret:
                request.add_unredirected_header("Authorization", f"Basic {secret}")
            try:
                with urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
                    told: dict[str, Any] = json.loads(answer.read(_CHUNK))
            except (OSError, ValueError, HTTPException):
                return False
            self._authorization = f"Bearer {told.get('token') or told.get('access_token')}"
        return bool(self._authorization) and self._authorization != before


def _credentials(host: str) -> str:
    """`user:password` in base64, as `docker login` keeps it; empty when there is none."""
    home = os.environ.get("DOCKER_CONFIG", str(Path.home() / ".docker"))
    try:
        config = json.loads((Path(home) / "config.json").read_bytes())
        secret = str(config["auths"][host]["auth"])
        base64.b64decode(secret, validate=True)
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return secret


def _said(refusal: HTTPError) -> str:
    """The registry's own words."""
    try:
        first = json.loads(refusal.read(_CHUNK))["errors"][0]
        return f"{first.get('code', '')} {first.get('message', '')}".strip()
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OSError):
        return str(refusal.reason)
