"""Pages of a sorted list."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TypeVar

from tuneproof.servicekit.errors import InvalidInput

T = TypeVar("T")

_DEFAULT_SIZE = 100
_MAX_SIZE = 1000


def page(
    items: Sequence[T], page_size: int, page_token: str, key: Callable[[T], str]
) -> tuple[list[T], str]:
    """One page of items, and the token of the next, empty after the last.

    A token names the last key that was given, so that items which come or go between two calls
    neither repeat nor hide others.

    Args:
        items: sorted by `key`; keys unique and not empty.
        page_size: at most 1,000; 0 means 100.

    Raises:
        InvalidInput: for a token that was not given by a page, or a page size out of range.
    """
    if not 0 <= page_size <= _MAX_SIZE:
        raise InvalidInput(f"page_size is {page_size}, not 0 to {_MAX_SIZE}", field="page_size")
    size = page_size or _DEFAULT_SIZE
    start = bisect_right(items, _decode(page_token), key=key) if page_token else 0
    chosen = list(items[start : start + size])
    more = start + size < len(items)
    return chosen, _encode(key(chosen[-1])) if more else ""


def _encode(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def _decode(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise InvalidInput(
            "page_token was not given by a page; begin with an empty one", field="page_token"
        ) from None
