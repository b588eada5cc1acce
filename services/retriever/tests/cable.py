"""A network namespace behind one link, which a test can take down: packets vanish then.

Nothing answers a packet that is lost, not even the kernel: no RST, no ICMP. Unlike a `Link` that is
cut, a handshake does not end either, and what is sent in between must be sent again.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Cable:
    """A namespace that this machine reaches under one address."""

    name: str
    address: str

    def listening(self) -> socket.socket:
        """A socket on a free port in there. A socket stays where it was made, whoever uses it."""
        made: list[socket.socket] = []

        def make() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            with Path(f"/run/netns/{self.name}").open() as namespace:
                if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_server((self.address, 0)))

        # Only this thread moves, and it ends.
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]

    def cut(self) -> None:
        """From now on nothing arrives, in either direction."""
        _ip("-n", self.name, "link", "set", f"{self.name}b", "down")

    def mend(self) -> None:
        """Whatever is sent again arrives."""
        _ip("-n", self.name, "link", "set", f"{self.name}b", "up")


@contextmanager
def cable() -> Iterator[Cable | None]:
    """A namespace and its link; None where this process may not make them."""
    name = f"tp{os.getpid()}"
    here, there = (f"198.18.{os.getpid() % 256}.{last}" for last in (1, 2))
    try:
        _ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no network namespaces here: {error}")
        yield None
        return
    try:
        near, far = f"{name}a", f"{name}b"
        _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        _ip("address", "add", f"{here}/30", "dev", near)
        _ip("link", "set", near, "up")
        _ip("-n", name, "address", "add", f"{there}/30", "dev", far)
        _ip("-n", name, "link", "set", far, "up")
        # Without this entry the kernel would ask for the address, and refuse when nobody answers.
        [shown] = json.loads(_ip("-n", name, "-json", "link", "show", far))
        _ip("neighbour", "replace", there, "lladdr", shown["address"], "dev", near)
        yield Cable(name, there)
    finally:
        _ip("netns", "delete", name)  # the link goes with it


def _ip(*arguments: str) -> str:
    done = subprocess.run(
        ["ip", *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout
