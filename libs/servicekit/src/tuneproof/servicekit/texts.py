"""What texts services take."""

from __future__ import annotations


def is_unicode(text: str) -> bool:
    """Whether services take a text: half a character, a lone surrogate, is no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
