"""The errors of tuneproof's domains. They know no gRPC; `status` maps them to it.

TuneproofError
├── InvalidInput       the caller's input is wrong
├── NotFound           the named thing does not exist
├── AlreadyExists      it exists already, and differs
├── WrongState         right input at the wrong time
├── Unauthenticated    no token, or an unknown one
├── Forbidden          the token's role does not suffice
├── Overloaded         a limit is reached; later it may work
├── Unavailable        something needed does not answer; later it may work
├── DeadlineExceeded   the caller's deadline has passed
├── Cancelled          the caller gave up
├── Corrupted          stored data is not what was written
└── Internal           a defect of tuneproof
"""

from __future__ import annotations

import re


class TuneproofError(Exception):
    """A failure that a caller can understand.

    Args:
        message: what was wrong, with which input, and what to do.
        reason: a stable word for machines; the class's name in UPPER_SNAKE by default.
        metadata: more facts for machines, as text.
    """

    def __init__(self, message: str, *, reason: str = "", **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).upper()
        self.metadata = metadata


class InvalidInput(TuneproofError):
    """The caller's input is wrong.

    Args:
        field: path of the field, as `chunking.max_tokens`.
    """

    def __init__(self, message: str, *, field: str = "", **more: str) -> None:
        super().__init__(message, **more)
        self.field = field


class NotFound(TuneproofError):
    """The named thing does not exist."""


class AlreadyExists(TuneproofError):
    """It exists already, and differs."""


class WrongState(TuneproofError):
    """Right input at the wrong time."""


class Unauthenticated(TuneproofError):
    """No token, or an unknown one."""


class Forbidden(TuneproofError):
    """The token's role does not suffice."""


class _Retryable(TuneproofError):
    """May work later.

    Args:
        retry_after: seconds after which it makes sense to try again; None when unknown.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, **more: str) -> None:
        super().__init__(message, **more)
        self.retry_after = retry_after


class Overloaded(_Retryable):
    """A limit is reached; later it may work."""


class Unavailable(_Retryable):
    """Something needed does not answer; later it may work."""


class DeadlineExceeded(TuneproofError):
    """The caller's deadline has passed."""


class Cancelled(TuneproofError):
    """The caller gave up."""


class Corrupted(TuneproofError):
    """Stored data is not what was written."""


class Internal(TuneproofError):
    """A defect of tuneproof."""
