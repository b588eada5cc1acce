"""Content digests, written as `sha256:<64 hex digits>`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_BLOCK = 1 << 20


def sha256_of_bytes(data: bytes) -> str:
    """Digest of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, in UTF-8: equal values give equal bytes.

    Raises:
        ValueError: for NaN and infinities, which JSON does not know.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8", errors="surrogatepass")


def sha256_of_json(value: Any) -> str:
    """Digest of a value's canonical JSON."""
    return sha256_of_bytes(canonical_json(value))


def sha256_of_json_list(values: Iterable[Any]) -> str:
    """`sha256_of_json` of a list that need not be in memory as a whole."""
    digest = hashlib.sha256(b"[")
    for number, value in enumerate(values):
        digest.update(b"," if number else b"")
        digest.update(canonical_json(value))
    digest.update(b"]")
    return f"sha256:{digest.hexdigest()}"


def sha256_of_file(path: Path) -> str:
    """Digest of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"
