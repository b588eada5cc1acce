"""What commands print, and the code with which they exit.

Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable, Iterator
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
"""Columns of output that does not go to a terminal."""
out = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
err = Console(stderr=True, soft_wrap=True, highlight=False)

_ADVICE = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "free space in your quota",
    errno.EROFS: "name a folder on a disk that can be written",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "name a folder that you may write to"),
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EEXIST),
        "a file stands where a folder should be; name another folder",
    ),
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
    """It finished, but something failed on the way."""
    UNAVAILABLE = 4
    """A service is not available."""
    HELD = 5
    """Another process holds the state."""
    INTERRUPTED = 130


@dataclass
class Behaviour:
    """The flags before the command."""

    debug: bool = False
    """Show the traceback of a failure."""


behaviour = Behaviour()


def say(text: str) -> None:
    """Prints a line for people, on standard error, without markup."""
    err.print(text, markup=False)


def print_json(value: Any) -> None:
    """Prints a result for machines, on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False), flush=True)


def give(value: Any, shown: str | Callable[[], None], *, as_json: bool) -> None:
    """Prints a command's result: as JSON, or for people as a text or by a function."""
    if as_json:
        print_json(value)
    elif isinstance(shown, str):
        out.print(shown, markup=False)
    else:
        shown()


@contextmanager
def plain_errors(*, on_interrupt: str = "interrupted") -> Iterator[None]:
    """Ends the program with one clear message and the right code, without a traceback."""
    try:
        yield
    except TuneproofError as error:
        if behaviour.debug:
            raise
        # Only this program knows where its token comes from.
        refused = isinstance(error, Unauthenticated | Forbidden)
        advice = "; give one of that service's tokens with --token, or in TUNEPROOF_TOKEN"
        say(f"tuneproof: {error.message}{advice if refused else ''}")
        raise SystemExit(code_of(error)) from None
    except KeyboardInterrupt:
        say(f"tuneproof: {on_interrupt}")
        raise SystemExit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(ExitCode.FAILED) from None
    except OSError as error:
        if behaviour.debug:
            raise
        say(f"tuneproof: {explain_os_error(error)}")
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


def explain_os_error(error: OSError) -> str:
    """Says what the operating system refused, where, and what to do about it."""
    problem = error.strerror or str(error) or type(error).__name__
    where = f"{error.filename}: " if error.filename else ""
    advice = _ADVICE.get(error.errno or 0, "correct this")
    return f"{where}{problem}: {advice}, and give the same command again; what is done is kept"
