"""The immutable name of an adapter."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tuneproof.servicekit.errors import InvalidInput

NAME_PATTERN = re.compile(r"[a-z][a-z0-9-]{0,62}")
DIGEST_PATTERN = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, order=True)
class AdapterRef:
    """One adapter: a name people choose, and the digest of what it is.

    Raises:
        InvalidInput: when the name or the digest is malformed.
    """

    name: str
    """1 to 63 characters of a-z, 0-9 and `-`, beginning with a letter."""
    digest: str
    """`sha256:` and 64 hexadecimal digits, of the manifest's bytes."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if not DIGEST_PATTERN.fullmatch(self.digest):
            raise InvalidInput(
                f"adapter digest {self.digest!r} is not `sha256:` and 64 hexadecimal digits",
                field="digest",
            )

    @classmethod
    def parse(cls, text: str) -> AdapterRef:
        """Reads `name@sha256:<64 hex>`.

        Raises:
            InvalidInput: for any other text.
        """
        name, at, digest = text.partition("@")
        if not at:
            raise InvalidInput(
                f"{text!r} is not an adapter reference: write name@sha256:<64 hexadecimal digits>",
                field="adapter_ref",
            )
        return cls(name, digest)

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}"

    @property
    def hex(self) -> str:
        """The digest's 64 hexadecimal digits, which name folders."""
        return self.digest.removeprefix("sha256:")


def check_name(name: str) -> None:
    """Raises InvalidInput unless an adapter may be called that."""
    if not NAME_PATTERN.fullmatch(name):
        raise InvalidInput(
            f"adapter name {name!r} is not 1 to 63 characters of a-z, 0-9 and `-`, "
            "beginning with a letter",
            field="adapter_name",
        )
