"""Bearer tokens with two roles: `use` reads and generates, `manage` also changes things."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.protobuf import descriptor, descriptor_pb2

from tuneproof.servicekit.errors import Forbidden, InvalidInput, Unauthenticated

_MIN_LENGTH = 16
_ROLES = ("use", "manage")
_NO_SIDE_EFFECTS = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS


@dataclass(frozen=True)
class Tokens:
    """The tokens that a service accepts."""

    roles: tuple[tuple[bytes, str], ...]
    """Pairs of token and role."""

    @classmethod
    def read(cls, path: Path) -> Tokens:
        """Reads a file with lines `use TOKEN` or `manage TOKEN`; `#` begins a comment.

        Raises:
            InvalidInput: with file and line, and never the token.
        """
        try:
            lines = path.read_text("utf-8").splitlines()
        except OSError as error:
            raise InvalidInput(f"cannot read the tokens file {path}: {error.strerror}") from None
        found = []
        for number, line in enumerate(lines, 1):
            words = line.split("#", 1)[0].split()
            if not words:
                continue
            if len(words) != 2 or words[0] not in _ROLES or len(words[1]) < _MIN_LENGTH:
                raise InvalidInput(
                    f"{path}, line {number}: expected `use TOKEN` or `manage TOKEN` with a token"
                    f" of {_MIN_LENGTH} characters or more"
                )
            found.append((words[1].encode(), words[0]))
        if not found:
            raise InvalidInput(f"{path} holds no token; write a line `manage TOKEN`")
        return cls(tuple(found))

    def role_of(self, token: str) -> str | None:
        """The role of a token, None for an unknown one, in time that tells nothing about it."""
        role = None
        for known, its_role in self.roles:
            if hmac.compare_digest(known, token.encode()):
                role = its_role
        return role

    def check(self, authorization: str, *, needs: str) -> None:
        """Checks an `authorization` header.

        Raises:
            Unauthenticated: without a known bearer token.
            Forbidden: when the token's role does not suffice.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("a bearer token is required: send `authorization: Bearer TOKEN`")
        role = self.role_of(token.strip())
        if role is None:
            raise Unauthenticated("the bearer token is not known here")
        if needs == "manage" and role != "manage":
            raise Forbidden("this call needs a token of the role manage; this one has the role use")


def role_needed(method: descriptor.MethodDescriptor) -> str:
    """`use` for methods marked NO_SIDE_EFFECTS in the contract, else `manage`."""
    harmless = method.GetOptions().idempotency_level == _NO_SIDE_EFFECTS
    return "use" if harmless else "manage"


def authorization_of(context: grpc.aio.ServicerContext) -> str:  # type: ignore[type-arg]
    """The call's `authorization` header, or an empty text."""
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and isinstance(value, str):
            return value
    return ""
