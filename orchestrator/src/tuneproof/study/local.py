"""A study's services on this machine: started when needed, ended when the study is done."""

from __future__ import annotations

from tuneproof.local import LocalOptions, Supervisor
from tuneproof.local.supervisor import Progress
from tuneproof.sdk import Endpoints
from tuneproof.servicekit.files import write_atomically

_MARK = "services-of-study"


class LocalServices:
    """Starts the four services, or takes over running ones with the same settings.

    A mark in the state folder distinguishes services that a study started from those of
    `tuneproof up`: after a crash, the next run takes over and ends the former; not the latter.

    Args:
        keep: leave the services running at the end.
    """

    def __init__(
        self, supervisor: Supervisor, options: LocalOptions, *, keep: bool, progress: Progress
    ) -> None:
        self._supervisor = supervisor
        self._options = options
        self._keep = keep
        self._progress = progress
        self._mark = options.state / _MARK

    async def start(self) -> Endpoints:
        """Makes sure that all four are ready."""
        if not self._supervisor.running():
            write_atomically(self._mark, b"")
        await self._supervisor.ensure_up(self._options, progress=self._progress)
        return Endpoints.discover(self._options.state, environment={})

    async def restart(self) -> Endpoints | None:
        """Restarts them with the current files; leaves those that `tuneproof up` keeps."""
        if self._supervisor.kept_elsewhere():
            return None
        await self._supervisor.take_down(progress=self._progress)
        return await self.start()

    async def close(self) -> None:
        """Ends them if a study started them, unless `keep` is set."""
        if not self._mark.exists():
            return
        if not self._keep:
            await self._supervisor.take_down(progress=self._progress)
        self._mark.unlink(missing_ok=True)
