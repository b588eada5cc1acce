"""Processes that outlive the program which started them, and are found again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneproof.servicekit.errors import Unavailable

_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that no later process can be mistaken for."""

    pid: int
    started: str
    """The kernel's start time of the process, in its own ticks."""

    @property
    def alive(self) -> bool:
        """Whether it runs; a zombie does not."""
        return _start_time(self.pid) == self.started


def start(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> ProcessId:
    """Starts a process in a session of its own, its output appended to a log file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            start_new_session=True,
        )
    return ProcessId(process.pid, _start_time(process.pid))


def stop(process: ProcessId, *, grace: float) -> None:
    """Ends a process by SIGTERM, and its whole group by SIGKILL after `grace` seconds."""
    if not process.alive:
        return
    os.kill(process.pid, signal.SIGTERM)
    end = time.monotonic() + grace
    while process.alive and time.monotonic() < end:
        _reap(process.pid)
        time.sleep(_POLL_SECONDS)
    if process.alive:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _reap(process.pid)


def free_port(preferred: int) -> int:
    """A loopback port that nobody listens on now: the preferred one where it is free."""
    for port in (preferred, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise Unavailable("this machine has no free loopback port")


def _start_time(pid: int) -> str:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    state, started = fields[0], fields[19]
    return "" if state == "Z" else started


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
