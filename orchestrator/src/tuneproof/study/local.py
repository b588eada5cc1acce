"""A study's services on this machine: started when they are needed, ended when it is done."""

from __future__ import annotations

from tuneproof.local import LocalOptions, Supervisor
from tuneproof.local.supervisor import Progress
from tuneproof.sdk import Endpoints
from tuneproof.servicekit.files import write_atomically

_MARK = "services-of-study"


class LocalServices:
    """Starts the four services, or takes those that run already with the same settings.

    A mark in the state folder tells services that a study started from those of `tuneproof up`:
    a study that is run again after a crash takes over and ends the former, and leaves the latter.

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
        """Ends them and starts them with the files as they are now; not those that
        `tuneproof up` keeps."""
        if self._supervisor.kept_elsewhere():
            return None
        await self._supervisor.take_down(progress=self._progress)
        return await self.start()

    async def close(self) -> None:
        """Ends them, if a study started them and they are not to be kept."""
        if not self._mark.exists():
            return
        if not self._keep:
            await self._supervisor.take_down(progress=self._progress)
        self._mark.unlink(missing_ok=True)
