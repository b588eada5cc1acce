"""What a worker prints, and the file that keeps it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

LOG = "log.txt"
"""The file in a worker's folder."""


class Log:
    """Standard output or error. What a full disk does not take of a log is lost, and the work goes
    on: transformers and TRL print at every step."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def also_write(path: Path) -> None:
    """What this process and its children print from now on goes to the file too: in a pod nobody
    else keeps it."""
    copy = subprocess.Popen(["tee", "-a", path], stdin=subprocess.PIPE, start_new_session=True)
    if copy.stdin is None:
        raise ValueError("a pipe was asked for")
    sys.stdout.flush()
    for stream in (sys.stdout, sys.stderr):
        os.dup2(copy.stdin.fileno(), stream.fileno())
