"""What services that ask an HTTP server share."""

from __future__ import annotations

import email.utils
import math
import time
from urllib.parse import urlsplit, urlunsplit


def is_http(url: str) -> bool:
    """Whether this is an http:// or https:// URL with a host."""
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def without_credentials(url: str) -> str:
    """The URL without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def retry_after(header: str) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3); None for nonsense."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
