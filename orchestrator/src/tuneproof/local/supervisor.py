"""Starting the services, finding those that run already, and ending them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tuneproof.local import processes
from tuneproof.local.options import PREFERRED_PORTS, SERVICES, LocalOptions, flags_of
from tuneproof.servicekit.client import is_ready
from tuneproof.servicekit.errors import Unavailable
from tuneproof.servicekit.files import write_atomically

_GRACE_SECONDS = 30.0
_POLL_SECONDS = 0.1
_LOG_LINES = 15

Progress = Callable[[str, str], None]
"""Is told a service's name and what it does: `starting`, `ready`, `running already`."""


class Supervisor:
    """The services of one state folder.

    A service is known by the announcement file among its arguments, so that a program that comes
    later, after a crash too, finds the services that run, and ends those that it should.
    """

    def __init__(self, state: Path) -> None:
        self._folder = state.resolve() / "services"
        self._endpoints = state.resolve() / "endpoints.json"

    async def ensure_up(
        self, options: LocalOptions, *, progress: Progress, timeout: float = 600.0
    ) -> list[str]:
        """Starts what does not run yet and waits until all are ready.

        A service that runs with other settings is ended and started again.

        Returns:
            The names of the services that were started now.

        Raises:
            Unavailable: when one ends or is not ready within `timeout` seconds; the message holds
                the end of its log.
        """
        commands = self._commands(options)
        running: dict[str, psutil.Process] = {}
        started = []
        for name in SERVICES:
            process = self._find(name)
            if process and process.cmdline() == commands[name]:
                progress(name, "running already")
            else:
                if process:
                    await asyncio.to_thread(processes.stop, process, grace=_GRACE_SECONDS)
                self._announcement(name).unlink(missing_ok=True)
                progress(name, "starting")
                process = processes.start(commands[name], self.log_of(name), _environment())
                started.append(name)
            running[name] = process
        try:
            async with asyncio.timeout(timeout), asyncio.TaskGroup() as waiting:
                for name in SERVICES:
                    waiting.create_task(self._until_ready(name, running[name], progress))
        except* TimeoutError:
            raise Unavailable(
                f"the services were not ready within {timeout:.0f} s; see {self._folder}"
            ) from None
        except* Unavailable as failures:
            raise failures.exceptions[0] from None
        self._write_endpoints()
        return started

    async def take_down(self, *, progress: Progress) -> None:
        """Ends every service of this folder that runs."""
        self._endpoints.unlink(missing_ok=True)

        async def end(name: str, process: psutil.Process) -> None:
            progress(name, "stopping")
            await asyncio.to_thread(processes.stop, process, grace=_GRACE_SECONDS)
            progress(name, "stopped")

        async with asyncio.TaskGroup() as ending:
            for name in SERVICES:
                if process := self._find(name):
                    ending.create_task(end(name, process))

    def running(self) -> dict[str, int]:
        """Process ids of the services that run, by name."""
        found = {name: self._find(name) for name in SERVICES}
        return {name: process.pid for name, process in found.items() if process}

    def addresses(self) -> dict[str, dict[str, str]]:
        """Where the services listen, by name, as they announced it; those that never did lack."""
        found = {name: self._addresses(name) for name in SERVICES}
        return {name: entry for name, entry in found.items() if entry}

    def log_of(self, name: str) -> Path:
        """The log file of a service."""
        return self._folder / f"{name}.log"

    async def _until_ready(self, name: str, process: psutil.Process, progress: Progress) -> None:
        start = time.monotonic()
        while True:
            if not processes.is_alive(process):
                raise Unavailable(
                    f"the {name} ended while it started. The end of {self.log_of(name)}:\n"
                    + self._log_end(name)
                )
            addresses = self._addresses(name)
            if addresses and await is_ready(addresses["health"]):
                progress(name, f"ready after {time.monotonic() - start:.0f} s")
                return
            await asyncio.sleep(_POLL_SECONDS)

    def _commands(self, options: LocalOptions) -> dict[str, list[str]]:
        ports = self._ports()
        flags = flags_of(options, ports)
        return {
            name: [
                *[sys.executable, "-m", f"tuneproof_{name}", *flags[name]],
                *["--bind", f"127.0.0.1:{ports[name]}"],
                *["--announce-file", str(self._announcement(name))],
            ]
            for name in SERVICES
        }

    def _ports(self) -> dict[str, int]:
        """The ports of this folder: the same at every start, so that clients find them again."""
        path = self._folder / "ports.json"
        if path.exists():
            known: dict[str, int] = json.loads(path.read_text())
            if set(known) == set(PREFERRED_PORTS):
                return known
        ports = {name: processes.free_port(port) for name, port in PREFERRED_PORTS.items()}
        write_atomically(path, json.dumps(ports).encode())
        return ports

    def _find(self, name: str) -> psutil.Process | None:
        process = processes.find(str(self._announcement(name)))
        return process if process and processes.is_alive(process) else None

    def _write_endpoints(self) -> None:
        write_atomically(self._endpoints, json.dumps(self.addresses(), indent=1).encode())

    def _announcement(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _addresses(self, name: str) -> dict[str, str] | None:
        path = self._announcement(name)
        return json.loads(path.read_text()) if path.exists() else None

    def _log_end(self, name: str) -> str:
        lines = self.log_of(name).read_text("utf-8", "replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:])


def _environment() -> dict[str, str]:
    """This program's environment, with less noise from the libraries of the services."""
    return {
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VLLM_NO_USAGE_STATS": "1",
        **os.environ,
    }
