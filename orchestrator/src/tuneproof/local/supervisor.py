"""Starting the services, finding those that run already, and ending them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tuneproof.local import processes
from tuneproof.local.options import PREFERRED_PORTS, SERVICES, LocalOptions, flags_of
from tuneproof.local.processes import ProcessId
from tuneproof.servicekit.client import is_ready
from tuneproof.servicekit.errors import Unavailable
from tuneproof.servicekit.files import write_atomically

_GRACE_SECONDS = 30.0
_POLL_SECONDS = 0.1
_LOG_LINES = 15

Progress = Callable[[str, str], None]
"""Is told a service's name and what it does: `starting`, `ready`, `running already`."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A service that was started for a state folder."""

    process: ProcessId
    command: list[str]


class Supervisor:
    """The services of one state folder.

    Everything that is known of them is in files, so that a program that comes later, after a
    crash too, finds the services that run, and ends those that it should.
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
        known = self._known()
        started = []
        for name in SERVICES:
            before = known.get(name)
            if before and before.process.alive and before.command == commands[name]:
                progress(name, "running already")
                continue
            if before:
                await asyncio.to_thread(processes.stop, before.process, grace=_GRACE_SECONDS)
            self._announcement(name).unlink(missing_ok=True)
            progress(name, "starting")
            process = processes.start(commands[name], self.log_of(name), _environment())
            known[name] = _Known(process, commands[name])
            self._remember(known)
            started.append(name)
        try:
            async with asyncio.timeout(timeout), asyncio.TaskGroup() as waiting:
                for name in SERVICES:
                    waiting.create_task(self._until_ready(name, known[name].process, progress))
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
        known = self._known()
        running = {name: entry for name, entry in known.items() if entry.process.alive}
        self._endpoints.unlink(missing_ok=True)

        async def end(name: str, process: ProcessId) -> None:
            progress(name, "stopping")
            await asyncio.to_thread(processes.stop, process, grace=_GRACE_SECONDS)
            progress(name, "stopped")

        async with asyncio.TaskGroup() as ending:
            for name, entry in running.items():
                ending.create_task(end(name, entry.process))
        self._remember({})

    def running(self) -> dict[str, int]:
        """Process ids of the services that run, by name."""
        known = self._known()
        return {name: entry.process.pid for name, entry in known.items() if entry.process.alive}

    def log_of(self, name: str) -> Path:
        """The log file of a service."""
        return self._folder / f"{name}.log"

    async def _until_ready(self, name: str, process: ProcessId, progress: Progress) -> None:
        start = time.monotonic()
        while True:
            if not process.alive:
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

    def _known(self) -> dict[str, _Known]:
        path = self._folder / "processes.json"
        if not path.exists():
            return {}
        content = json.loads(path.read_text())
        return {
            name: _Known(ProcessId(**entry["process"]), entry["command"])
            for name, entry in content.items()
        }

    def _remember(self, known: Mapping[str, _Known]) -> None:
        content = {
            name: {"process": asdict(entry.process), "command": entry.command}
            for name, entry in known.items()
        }
        write_atomically(self._folder / "processes.json", json.dumps(content, indent=1).encode())

    def _write_endpoints(self) -> None:
        content = {name: self._addresses(name) for name in SERVICES}
        write_atomically(self._endpoints, json.dumps(content, indent=1).encode())

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
