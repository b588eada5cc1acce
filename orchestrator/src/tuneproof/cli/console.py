"""What commands print, and with which code they end.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 failed,
2 bad input, 3 finished but something failed on the way, 4 a service is unavailable, 5 another
process holds the state, 130 interrupted.
"""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from rich.console import Console

from tuneproof.servicekit.errors import (
    Forbidden,
    InvalidInput,
    TuneproofError,
    Unauthenticated,
    Unavailable,
)
from tuneproof.study.state.lock import StateHeld

_PIPE_WIDTH = 140
"""Columns where the output goes to no terminal."""
out = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
err = Console(stderr=True, soft_wrap=True, highlight=False)

_ADVICE = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "free space in your quota",
    errno.EROFS: "name a folder on a disk that can be written",
    errno.EACCES: "name a folder that you may write to",
    errno.EPERM: "name a folder that you may write to",
    errno.ENOTDIR: "a file stands where a folder should be; name another folder",
    errno.EEXIST: "a file stands where a folder should be; name another folder",
    errno.EISDIR: "a folder stands where a file should be; name another file",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.EMFILE: "let this program open more files (ulimit -n)",
}
"""What to do, by error number."""


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    PARTLY = 3
    UNAVAILABLE = 4
    HELD = 5
    INTERRUPTED = 130


@dataclass
class Behaviour:
    """What the flags before the command say."""

    debug: bool = False
    """Failures show their traceback."""


behaviour = Behaviour()


def say(text: str) -> None:
    """A line for people, on standard error, as it is."""
    err.print(text, markup=False)


def print_json(value: Any) -> None:
    """A result for machines, on standard output."""
    print(json.dumps(value, indent=2, sort_keys=False, ensure_ascii=False, allow_nan=False))
    sys.stdout.flush()


@contextmanager
def plain_errors(*, on_interrupt: str = "interrupted") -> Iterator[None]:
    """Ends the program with one clear message and the right code, without a traceback."""
    try:
        yield
    except TuneproofError as error:
        if behaviour.debug:
            raise
        _complain(error.message + _advice_on(error))
        raise SystemExit(code_of(error)) from None
    except KeyboardInterrupt:
        _complain(on_interrupt)
        raise SystemExit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(ExitCode.FAILED) from None
    except OSError as error:
        if behaviour.debug:
            raise
        _complain(explain_os_error(error))
        raise SystemExit(ExitCode.FAILED) from None


def code_of(error: TuneproofError) -> ExitCode:
    """The exit code of an error."""
    if isinstance(error, StateHeld):
        return ExitCode.HELD
    if isinstance(error, InvalidInput):
        return ExitCode.BAD_INPUT
    if isinstance(error, Unavailable):
        return ExitCode.UNAVAILABLE
    return ExitCode.FAILED


def _advice_on(error: TuneproofError) -> str:
    """What only this program knows: where its token comes from."""
    if isinstance(error, Unauthenticated | Forbidden):
        return "; give one of that service's tokens with --token, or in TUNEPROOF_TOKEN"
    return ""


def explain_os_error(error: OSError) -> str:
    """What the operating system refused, where, and what to do about it."""
    problem = error.strerror or str(error) or type(error).__name__
    where = f"{error.filename}: " if error.filename else ""
    advice = _ADVICE.get(error.errno or 0, "put that right")
    return f"{where}{problem}: {advice}, and give the same command again; what is done is kept"


def _complain(message: str) -> None:
    lines = message.splitlines() or [""]
    say(f"tuneproof: {lines[0]}")
    for line in lines[1:]:
        say(line)
