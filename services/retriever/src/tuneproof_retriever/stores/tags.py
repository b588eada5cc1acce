"""Metadata entries as short marks that an index can hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from tuneproof.servicekit.digests import canonical_json


def tags_of(entries: Mapping[str, str]) -> list[str]:
    """A mark for each entry, 32 hexadecimal digits, sorted by key.

    A digest has neither quotes nor operators, so a filter cannot become part of a query language.
    """
    return [
        hashlib.sha256(canonical_json([key, value])).hexdigest()[:32]
        for key, value in sorted(entries.items())
    ]
