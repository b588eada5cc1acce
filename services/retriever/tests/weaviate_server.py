"""A real Weaviate server for tests, from the folder that TUNEPROOF_TOOLS names."""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

TOOL = Path(os.environ.get("TUNEPROOF_TOOLS", "")) / "weaviate" / "weaviate.sh"


@dataclass(frozen=True)
class WeaviateServer:
    """A server of this machine; its ports stay the same when it is started again."""

    folder: Path
    http_port: int
    grpc_port: int
    api_key: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def start(self) -> None:
        """Returns when it is ready."""
        environment = {**os.environ, "WEAVIATE_API_KEY": self.api_key}
        ports = (str(self.http_port), str(self.grpc_port))
        done = subprocess.run(
            [str(TOOL), "start", str(self.folder), *ports],
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr

    def kill(self) -> None:
        """As the kernel does when memory ends; returns when its memory and its ports are free."""
        pid = int((self.folder / "weaviate.pid").read_text())
        ended = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            assert select.select([ended], [], [], 60)[0], f"{pid} is killed and does not end"
        finally:
            os.close(ended)

    def stop(self) -> None:
        subprocess.run([str(TOOL), "stop", str(self.folder)], timeout=90, check=True)


def new_server(folder: Path, *, api_key: str = "") -> WeaviateServer:
    """A server that is not started yet; skips the test when there is none to start."""
    if not TOOL.is_file():
        pytest.skip(
            "Weaviate is missing: set TUNEPROOF_TOOLS to the folder that holds"
            " weaviate/weaviate.sh and weaviate-server.xz (Weaviate 1.39, unmodified)"
        )
    if missing := [name for name in ("curl", "xz") if not shutil.which(name)]:
        pytest.skip(
            f"Weaviate's script needs {' and '.join(missing)}: apt-get install curl xz-utils"
        )
    http_port = _free_port(offsets=(0, 10_000, 10_001, 10_002, 10_003))
    return WeaviateServer(folder, http_port, _free_port(), api_key)


def _free_port(offsets: tuple[int, ...] = (0,)) -> int:
    """A port of which those at the offsets, which Weaviate takes too, are also free.

    All lie below what the kernel gives to connections: none is taken while the server is down.
    """
    while True:
        port = random.randrange(10_000, 22_000)
        if all(_is_free(port + offset) for offset in offsets):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
