"""A real S3 server over a folder, for tests; its script comes with TUNEPROOF_TOOLS."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fsspec

MISSING = (
    "needs an S3 server: set TUNEPROOF_TOOLS to a folder with s3/s3.sh, whose `start DIR PORT`"
    " serves a bucket `artifacts` and prints AWS_… for its clients"
)


@dataclass
class S3:
    """A server that can be stopped and started again.

    Its bucket `artifacts` is `<folder>/data/artifacts`.
    """

    script: Path
    folder: Path
    port: int

    def start(self) -> dict[str, str]:
        """Starts it; returns the variables that its clients need."""
        done = subprocess.run(
            [self.script, "start", self.folder, str(self.port)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=60,
        )
        return dict(word.split("=", 1) for word in shlex.split(done.stdout)[1:])

    def stop(self) -> None:
        """Stops it; what it holds stays."""
        subprocess.run([self.script, "stop", self.folder], check=True, timeout=60)


def s3_tools() -> Path | None:
    """The script; None where it is not at hand (`MISSING` says how to get it)."""
    tools = os.environ.get("TUNEPROOF_TOOLS")
    return Path(tools) / "s3" / "s3.sh" if tools else None


@contextmanager
def s3_server(script: Path, folder: Path) -> Iterator[tuple[S3, dict[str, str]]]:
    """A server of its own, and the variables that its clients need."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = S3(script, folder, probe.getsockname()[1])
    variables = server.start()
    # fsspec keeps its clients: one of an earlier server would ask that.
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    try:
        yield server, variables
    finally:
        server.stop()
