"""Bearer tokens with two roles: `use` reads and generates, `manage` also changes things.

Authenticator    Protocol
|- TokensFile    a file that lists tokens, read again when it changes
`- TokenReview   Kubernetes says whose a token is (token_review.py)
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

import grpc
from google.protobuf import descriptor, descriptor_pb2

from tuneproof.servicekit.errors import Forbidden, InvalidInput, Unauthenticated
from tuneproof.servicekit.reloading import Reloaded, read_text

_MIN_LENGTH = 16
_ROLES = ("use", "manage")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._-]{0,63}")
_CALLER: ContextVar[str] = ContextVar("tuneproof_caller", default="")
_NO_SIDE_EFFECTS = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS


class Authenticator(Protocol):
    """Decides who may call."""

    async def check(self, authorization: str, *, needs: str) -> str:
        """Checks an `authorization` header; the caller's name, or an empty text.

        Args:
            needs: the role, `use` or `manage`.

        Raises:
            Unauthenticated: without a known bearer token.
            Forbidden: when the token's role does not suffice.
            Unavailable: it cannot be decided now.
        """


@dataclass(frozen=True)
class Tokens:
    """The tokens that a service accepts."""

    roles: tuple[tuple[bytes, str], ...]
    """Pairs of token and role."""
    names: Mapping[bytes, str] = field(default_factory=dict, repr=False)
    """Who holds a token, where the file says so."""

    @classmethod
    def read(cls, path: Path) -> Tokens:
        """Reads a file with lines `use TOKEN [NAME]` or `manage TOKEN [NAME]`; `#` begins a
        comment.

        Raises:
            InvalidInput: with file and line, and never the token.
        """
        lines = read_text(path, f"the tokens file {path}").splitlines()
        found: list[tuple[bytes, str]] = []
        names: dict[bytes, str] = {}
        for number, line in enumerate(lines, 1):
            words = line.split("#", 1)[0].split()
            if not words:
                continue
            if len(words) not in (2, 3) or words[0] not in _ROLES or len(words[1]) < _MIN_LENGTH:
                raise InvalidInput(
                    f"{path}, line {number}: expected `use TOKEN` or `manage TOKEN` with a token of"
                    f" {_MIN_LENGTH} characters or more, optionally followed by its holder's name"
                )
            role, token, *name = words
            if name and not _NAME.fullmatch(name[0]):
                raise InvalidInput(
                    f"{path}, line {number}: the name after the token is not 1 to 64 characters of"
                    " letters, digits, `@`, `.`, `_` and `-`, beginning with a letter or digit"
                )
            found.append((token.encode(), role))
            names |= {token.encode(): each for each in name}
        if not found:
            raise InvalidInput(f"{path} holds no token; write a line `manage TOKEN`")
        return cls(tuple(found), names)

    def role_of(self, token: str) -> str | None:
        """The role of a token, None for an unknown one; in a time that does not depend on it."""
        role = None
        for known, its_role in self.roles:
            if hmac.compare_digest(known, token.encode()):
                role = its_role
        return role

    async def check(self, authorization: str, *, needs: str) -> str:
        """As an `Authenticator`."""
        token = bearer_token(authorization)
        role = self.role_of(token)
        if role is None:
            raise Unauthenticated("the bearer token is not known here")
        if needs == "manage" and role != "manage":
            raise Forbidden("this call needs a token of the role manage; this one has the role use")
        return self.names.get(token.encode(), "")


class TokensFile:
    """The tokens of a file at this moment: a token that it lists no longer is refused.

    Raises:
        InvalidInput: as `Tokens.read`.
    """

    def __init__(self, path: Path) -> None:
        self._tokens = Reloaded([path], lambda: Tokens.read(path))

    async def check(self, authorization: str, *, needs: str) -> str:
        """As an `Authenticator`."""
        return await self._tokens.now().check(authorization, needs=needs)


def bearer_token(authorization: str) -> str:
    """The token of an `authorization` header.

    Raises:
        Unauthenticated: it holds none.
    """
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("a bearer token is required: send `authorization: Bearer TOKEN`")
    return token.strip()


def role_needed(method: descriptor.MethodDescriptor) -> str:
    """`use` for methods marked NO_SIDE_EFFECTS in the contract, else `manage`."""
    harmless = method.GetOptions().idempotency_level == _NO_SIDE_EFFECTS
    return "use" if harmless else "manage"


def authorization_of(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The `authorization` header of a call, or an empty text."""
    for key, value in metadata:
        if key == "authorization" and isinstance(value, str):
            return value
    return ""


def set_caller(name: str) -> None:
    """Remembers who makes the current call."""
    _CALLER.set(name)


def caller_of(context: grpc.aio.ServicerContext) -> str:  # type: ignore[type-arg]
    """Who makes this call: the name of the token's holder, of the client's certificate, or else
    the peer's address."""
    peer = unquote(context.peer())
    name = _CALLER.get() or next((each.decode() for each in context.peer_identities() or ()), "")
    if not name and peer.startswith(("ipv4:", "ipv6:")):
        name = peer.split(":", 1)[1].rpartition(":")[0].strip("[]")
    return name or peer
