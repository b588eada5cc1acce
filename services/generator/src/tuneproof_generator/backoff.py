"""When to try again what failed, and whether that can help."""

from __future__ import annotations

import random

from tuneproof.servicekit.errors import DeadlineExceeded, NotFound, Overloaded, Unavailable

_FIRST_SECONDS = 1.0
_LONGEST_SECONDS = 300.0
_MAX_DOUBLINGS = 16


class Backoff:
    """Waits that double, each shortened at random by up to a half, so that replicas which failed
    together do not come back together."""

    def __init__(
        self,
        first: float = _FIRST_SECONDS,
        longest: float = _LONGEST_SECONDS,
        source: random.Random | None = None,
    ) -> None:
        self._first = first
        self._longest = longest
        self._random = source or random.Random()  # noqa: S311 - nothing is kept secret by it

    def seconds(self, tries: int) -> float:
        """The wait after so many failed tries, 1 or more."""
        whole: float = min(self._first * 2.0 ** min(tries - 1, _MAX_DOUBLINGS), self._longest)
        return whole * self._random.uniform(0.5, 1.0)


def may_pass(error: BaseException) -> bool:
    """Whether the same may work later: what did not answer, but never what is wrong.

    A disk that is full or a folder that cannot be read is an OSError; what is not found may lie in
    a folder that is not mounted, or in a bucket that is still being copied.
    """
    return isinstance(error, Unavailable | Overloaded | DeadlineExceeded | NotFound | OSError)
