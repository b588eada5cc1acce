"""Starts the services, finds running ones, and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from tuneproof.local import processes
from tuneproof.local.options import PREFERRED_PORTS, SERVICES, LocalOptions, flags_of
from tuneproof.servicekit.client import is_ready
from tuneproof.servicekit.errors import Unavailable, WrongState
from tuneproof.servicekit.files import write_atomically
from tuneproof.servicekit.locks import Holder, holder_of, locked

_GRACE_SECONDS = 30.0
_POLL_SECONDS = 0.1
_PORT_SECONDS = 5.0
_LOG_LINES = 15
_PORTS_FILE = "ports.json"
_PORTS_OF = {"generator": ("generator", "openai"), "judge": ("judge", "judge_http")}

Progress = Callable[[str, str], None]
"""Receives a service's name and what it does: `starting`, `ready`, `running already`."""


class Supervisor:
    """The services of one state folder.

    The announcement file among its arguments identifies a service. So a later program, even after
    a crash, finds the running services and stops those that it should.
    """

    def __init__(self, state: Path) -> None:
        self._folder = state.resolve() / "services"
        self._endpoints = state.resolve() / "endpoints.json"
        self._kept = self._folder / "kept.lock"
        self._keeps = False

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """Keeps other programs from replacing the services of this folder while it lasts.

        Raises:
            WrongState: another program keeps them already.
        """
        with locked(
            self._kept,
            lambda holder: WrongState(
                f"the services of {self._folder.parent} are kept by `tuneproof up` ({holder}): use"
                " them, stop them there, or take another folder with --state"
            ),
        ):
            self._keeps = True
            try:
                yield
            finally:
                self._keeps = False

    async def ensure_up(
        self, options: LocalOptions, *, progress: Progress, timeout: float = 600.0
    ) -> list[str]:
        """Starts what does not run yet and waits until all are ready.

        It restarts a service that runs with other settings.

        Returns:
            The names of the services that it started.

        Raises:
            WrongState: a service runs with other settings, and `tuneproof up` keeps it.
            Unavailable: another program has a service's port, or a service ends, or is not ready
                within `timeout` seconds; the message holds the end of its log.
            OSError: the state folder cannot be written.
        """
        ports = self._ports()
        commands = self._commands(options, ports)
        running: dict[str, psutil.Process] = {}
        for name in SERVICES:
            process = self._find(name)
            if process and process.cmdline() == commands[name]:
                progress(name, "running already")
                running[name] = process
            elif process:
                if holder := self.kept_elsewhere():
                    raise WrongState(
                        f"the {name} of {self._folder.parent} runs with other settings, and"
                        f" `tuneproof up` ({holder}) keeps it: stop that, or take another folder"
                        " with --state"
                    )
                await asyncio.to_thread(processes.stop, process, grace=_GRACE_SECONDS)
        started = [name for name in SERVICES if name not in running]
        for name in started:
            await self._until_free(name, ports)
        for name in started:
            self._announcement(name).unlink(missing_ok=True)
            progress(name, "starting")
            running[name] = processes.start(commands[name], self.log_of(name), _environment())
        try:
            async with asyncio.timeout(timeout), asyncio.TaskGroup() as waiting:
                for name in SERVICES:
                    waiting.create_task(self._until_ready(name, running[name], progress))
        except* TimeoutError:
            raise Unavailable(
                f"the services were not ready within {timeout:.0f} s; see {self._folder}"
            ) from None
        except* (Unavailable, OSError) as failures:
            raise failures.exceptions[0] from None
        write_atomically(self._endpoints, json.dumps(self.addresses(), indent=1).encode())
        return started

    async def take_down(self, *, progress: Progress, names: Sequence[str] = SERVICES) -> None:
        """Stops the running services of this folder, but first a `tuneproof up` that would restart
        them.

        Raises:
            Unavailable: that `tuneproof up` does not end.
        """
        if keeper := self.kept_elsewhere():
            progress("tuneproof up", f"stopping ({keeper})")
            await asyncio.to_thread(_end, keeper)
        if set(self.running()) <= set(names):
            self._endpoints.unlink(missing_ok=True)

        async def end(name: str, process: psutil.Process) -> None:
            progress(name, "stopping")
            await asyncio.to_thread(processes.stop, process, grace=_GRACE_SECONDS)
            progress(name, "stopped")

        async with asyncio.TaskGroup() as ending:
            for name in names:
                if process := self._find(name):
                    ending.create_task(end(name, process))

    def kept_elsewhere(self) -> Holder | None:
        """The `tuneproof up` that keeps the services of this folder, when it is another process."""
        return None if self._keeps else holder_of(self._kept)

    def running(self) -> dict[str, int]:
        """Process ids of the services that run, by name."""
        found = {name: self._find(name) for name in SERVICES}
        return {name: process.pid for name, process in found.items() if process}

    def addresses(self) -> dict[str, dict[str, str]]:
        """The addresses that services announced, by name."""
        found = {name: self._addresses(name) for name in SERVICES}
        return {name: entry for name, entry in found.items() if entry}

    def log_of(self, name: str) -> Path:
        """The log file of a service."""
        return self._folder / f"{name}.log"

    async def _until_ready(self, name: str, process: psutil.Process, progress: Progress) -> None:
        start = time.monotonic()
        while True:
            if not processes.is_alive(process):
                lines = self.log_of(name).read_text("utf-8", "replace").splitlines()[-_LOG_LINES:]
                lines = lines or ["(nothing: it was killed, or its disk is full)"]
                raise Unavailable(
                    f"the {name} ended while it started. The end of {self.log_of(name)}:\n"
                    + "\n".join(f"  {line}" for line in lines)
                )
            addresses = self._addresses(name)
            if addresses and await is_ready(addresses["health"]):
                progress(name, f"ready after {time.monotonic() - start:.0f} s")
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def _until_free(self, name: str, ports: Mapping[str, int]) -> None:
        """Waits a little for a service's ports: a former process of ours may still be ending."""
        needed = [ports[each] for each in _PORTS_OF.get(name, (name,))]
        end = time.monotonic() + _PORT_SECONDS
        while taken := [port for port in needed if not processes.is_free(port)]:
            if time.monotonic() > end:
                holder = processes.listener(taken[0])
                raise Unavailable(
                    f"the {name} cannot start: port {taken[0]} is taken by"
                    f" {holder or 'another program'}. End that, or delete"
                    f" {self._folder / _PORTS_FILE} to get other ports"
                )
            await asyncio.sleep(_POLL_SECONDS)

    def _commands(self, options: LocalOptions, ports: Mapping[str, int]) -> dict[str, list[str]]:
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
        """The ports of this folder: always the same, so that clients find them again."""
        path = self._folder / _PORTS_FILE
        with contextlib.suppress(FileNotFoundError, ValueError):
            known: dict[str, int] = json.loads(path.read_text())
            if set(known) == set(PREFERRED_PORTS):
                return known
        ports = {name: processes.free_port(port) for name, port in PREFERRED_PORTS.items()}
        write_atomically(path, json.dumps(ports).encode())
        return ports

    def _find(self, name: str) -> psutil.Process | None:
        process = processes.find(str(self._announcement(name)))
        return process if process and processes.is_alive(process) else None

    def _announcement(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _addresses(self, name: str) -> dict[str, str] | None:
        path = self._announcement(name)
        return json.loads(path.read_text()) if path.exists() else None


def _end(keeper: Holder) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(keeper.pid)
        process.terminate()
        try:
            process.wait(2 * _GRACE_SECONDS)
        except psutil.TimeoutExpired:
            raise Unavailable(f"`tuneproof up` ({keeper}) does not end; end it first") from None


def _environment() -> dict[str, str]:
    """This program's environment, with less noise from the libraries of the services."""
    return {
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VLLM_NO_USAGE_STATS": "1",
        **os.environ,
    }
