"""Processes that outlive the program that started them, and how to find them again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tuneproof.servicekit.errors import Unavailable


def start(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> psutil.Process:
    """Starts a process in a session of its own; its output goes to the end of a log file."""
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
    return psutil.Process(process.pid)


def find(mark: str) -> psutil.Process | None:
    """The process, not its children, that `start` started with `mark` among its arguments.

    The arguments are the only record, so a crash cannot lose it.
    """
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            leads = os.getsid(process.pid) == process.pid
            if leads and mark in process.cmdline() and process.uids().real == os.getuid():
                return process
    return None


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def stop(process: psutil.Process, *, grace: float) -> None:
    """Ends a process by SIGTERM; after `grace` seconds its whole group by SIGKILL."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
        try:
            process.wait(grace)
        except psutil.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(grace)


def is_free(port: int) -> bool:
    """Whether a server can listen on a loopback port now."""
    with socket.socket() as probe:
        # As servers do: a connection that just ended does not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def listener(port: int) -> str:
    """The process that listens on a port, in words; empty where this user may not see it."""
    with contextlib.suppress(psutil.Error):
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr[1:] == (port,) and each.pid:
                return f"process {each.pid} ({psutil.Process(each.pid).name()})"
    return ""


def free_port(preferred: int) -> int:
    """A free loopback port: the preferred one, or else any."""
    for port in (preferred, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise Unavailable("every loopback port of this machine is taken")
