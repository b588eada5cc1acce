"""A study's services on this machine: started when needed, ended when the study is done.

Of several bases the generator serves one at a time: `start` with another base's name ends the one
and starts the other. Retriever, trainer and judge stay.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tuneproof.local import LocalBase, LocalOptions, RetrieverOptions, Supervisor
from tuneproof.local.supervisor import Progress
from tuneproof.sdk import Endpoints
from tuneproof.servicekit.files import write_atomically
from tuneproof.study.design.sources import Sources

_MARK = "services-of-study"


def local_options(
    sources: Sources,
    state: Path,
    judge_url: str = "",
    judge_model: str = "",
    retriever: RetrieverOptions | None = None,
) -> LocalOptions:
    """How to start the services of a study on this machine."""
    bases = tuple(
        LocalBase(base.model, base.served_name, base.revision, base.serving)
        for base in sources.bases
    )
    return LocalOptions(
        state.resolve(),
        bases,
        judge_url,
        judge_model,
        sources.rubrics,
        retriever or RetrieverOptions(),
        judging=sources.judge_base,
    )


class LocalServices:
    """Starts the four services, or takes over running ones with the same settings.

    A mark in the state folder distinguishes services that a study started from those of
    `tuneproof up`: after a crash, the next run takes over and ends the former; not the latter.

    Args:
        keep: leave the services running at the end.
    """

    one_at_a_time = True
    """It serves one base after the other."""

    def __init__(
        self, supervisor: Supervisor, options: LocalOptions, *, keep: bool, progress: Progress
    ) -> None:
        self._supervisor = supervisor
        self._options = options
        self._keep = keep
        self._progress = progress
        self._mark = options.state / _MARK

    async def start(self, model: str = "") -> Endpoints:
        """Makes sure that all four are ready, and that the generator serves a base.

        Args:
            model: what the study calls it; empty: whichever it serves.
        """
        if model:
            self._options = replace(self._options, served=model)
        if not self._supervisor.running():
            write_atomically(self._mark, b"")
        await self._supervisor.ensure_up(self._options, progress=self._progress)
        return Endpoints.discover(self._options.state, environment={})

    async def restart(self, model: str = "") -> Endpoints | None:
        """Restarts them with the current files; leaves those that `tuneproof up` keeps."""
        if self._supervisor.kept_elsewhere():
            return None
        await self._supervisor.take_down(progress=self._progress)
        return await self.start(model)

    async def close(self) -> None:
        """Ends them if a study started them, unless `keep` is set."""
        if not self._mark.exists():
            return
        if not self._keep:
            await self._supervisor.take_down(progress=self._progress)
        self._mark.unlink(missing_ok=True)
