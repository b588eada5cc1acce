"""A judge's process that tests kill."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tuneproof.sdk import JudgeClient
from tuneproof.servicekit.errors import DeadlineExceeded, Unavailable

from ..programs import free_ports


class JudgeProcess:
    """On one port, with a model called `fake`."""

    def __init__(self, endpoint_url: str, log: Path, *flags: str) -> None:
        self.target = f"127.0.0.1:{free_ports(1)[0]}"
        own = ["--bind", self.target, "--health-bind", "127.0.0.1:0"]
        own += ["--metrics-bind", "127.0.0.1:0", "--endpoint-url", endpoint_url]
        self._flags, self._log = [*own, "--endpoint-model", "fake", *flags], log
        self.start()

    def start(self) -> None:
        """Does not wait for it; see `answers`."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tuneproof_judge", *self._flags], stdout=log, stderr=log
            )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    async def answers(self) -> None:
        """Waits until it does."""
        async with JudgeClient(self.target) as client:
            for _ in range(200):
                with suppress(Unavailable, DeadlineExceeded):
                    await client.rubrics(timeout=3)
                    return
                await asyncio.sleep(0.1)
