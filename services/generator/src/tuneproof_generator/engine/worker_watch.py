"""Ends the engine's processes when the service dies, however it dies.

vLLM 0.32 runs the engine core and its workers as processes of their own. A worker ends with its
engine core, but the core does not notice that the service was killed with SIGKILL: it stays,
with all its memory. So each worker watches the service (`worker` calls `watch` there).
"""

from __future__ import annotations

import os
import select
import signal
import threading
from pathlib import Path

SERVICE_PID = "TUNEPROOF_GENERATOR_SERVICE_PID"
"""Environment variable with the process to watch."""


def watch(service: int) -> None:
    """Kills this process, and those between it and the service, once the service is gone."""
    chain = _processes_below(service)
    try:
        handle = os.pidfd_open(service)
    except ProcessLookupError:
        _kill(chain)
        return
    threading.Thread(
        target=_wait_and_kill, args=(handle, chain), name="service-watch", daemon=True
    ).start()


def _processes_below(service: int) -> list[int]:
    """This process's ancestors below the service, outermost first, then itself.

    Only itself when the service is not an ancestor: it died before, and its children have another
    parent. An engine core ends when its worker dies at start.
    """
    chain = [os.getpid()]
    while parent := _parent(chain[0]):
        if parent == service:
            return chain
        chain.insert(0, parent)
    return chain[-1:]


def _parent(process: int) -> int:
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return 0
    # The name, in brackets, may hold blanks and brackets itself.
    return int(stat.rpartition(")")[2].split()[1])


def _wait_and_kill(handle: int, chain: list[int]) -> None:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    poll.poll()
    _kill(chain)


def _kill(chain: list[int]) -> None:
    for process in chain:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
