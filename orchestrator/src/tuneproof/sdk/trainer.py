"""Client of the trainer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from tuneproof.sdk.connection import Client, Connection, all_pages
from tuneproof.sdk.runs import RunInfo, RunSpec
from tuneproof.sdk.trainer_messages import run_of, spec_message
from tuneproof.servicekit.errors import DeadlineExceeded, Overloaded, Unavailable
from tuneproof.servicekit.retries import Patience, Retries
from tuneproof.trainer.v1 import trainer_pb2 as pb
from tuneproof.trainer.v1 import trainer_pb2_grpc

_AWAY = Retries(first=0.2, longest=5.0)


class TrainerClient(Client):
    """Trains adapters; an asynchronous context manager.

    Every method raises the service's own error (`InvalidInput`, `NotFound` …), `Unavailable` when
    the service cannot be reached, and `DeadlineExceeded` after `timeout` seconds.
    """

    def __init__(self, target: str, *, token: str | None = None) -> None:
        services = pb.DESCRIPTOR.services_by_name.values()
        super().__init__(Connection("trainer", target, token=token, services=services))
        self._stub = trainer_pb2_grpc.TrainerServiceStub(self._connection.channel)

    async def create(self, run_id: str, spec: RunSpec, *, timeout: float = 60.0) -> RunInfo:
        """Queues a run, or gives the one that exists with this id and spec.

        Raises:
            AlreadyExists: when the id is that of a run with another spec.
        """
        request = pb.CreateRunRequest(run_id=run_id, spec=spec_message(spec))
        with self._connection.errors("CreateRun"):
            reply = await self._stub.CreateRun(request, timeout=timeout)
        return run_of(reply.run)

    async def get(self, run_id: str, *, timeout: float = 30.0) -> RunInfo:
        """A run by id."""
        with self._connection.errors("GetRun"):
            reply = await self._stub.GetRun(pb.GetRunRequest(run_id=run_id), timeout=timeout)
        return run_of(reply.run)

    async def list(self, *, timeout: float = 30.0) -> list[RunInfo]:
        """All runs, the newest first, without their losses."""

        async def read(token: str) -> tuple[list[RunInfo], str]:
            with self._connection.errors("ListRuns"):
                reply = await self._stub.ListRuns(
                    pb.ListRunsRequest(page_token=token), timeout=timeout
                )
            return [run_of(run) for run in reply.runs], reply.next_page_token

        return await all_pages(read)

    async def cancel(self, run_id: str, *, timeout: float = 60.0) -> RunInfo:
        """Stops a run that has not ended.

        Raises:
            WrongState: when it has succeeded or failed.
        """
        with self._connection.errors("CancelRun"):
            reply = await self._stub.CancelRun(pb.CancelRunRequest(run_id=run_id), timeout=timeout)
        return run_of(reply.run)

    async def watch(
        self, run_id: str, *, patience: float = 120.0, timeout: float = 300.0
    ) -> AsyncIterator[RunInfo]:
        """Yields the run as it is, then each change, with all losses so far; ends with the run.

        Goes on where it was when the service restarts.

        Args:
            patience: seconds for which the service may be away without a break.
            timeout: seconds after which a new stream is opened, so that a dead connection does not
                go unnoticed.

        Raises:
            Unavailable: when the service is away for longer than `patience`.
        """
        losses: dict[int, float] = {}
        away = Patience(_AWAY, patience)
        while True:
            failure: Unavailable | Overloaded = Unavailable(
                f"{self._connection.peer} ends each watch of run {run_id} before the run does"
            )
            try:
                async for run in self._changes(run_id, max(losses, default=0), timeout):
                    losses.update(run.losses)
                    away.answered()
                    yield replace(run, losses=tuple(sorted(losses.items())))
                    if run.ended:
                        return
            except DeadlineExceeded:
                continue
            except (Unavailable, Overloaded) as error:
                failure = error
            await away.wait(failure)

    async def wait(
        self,
        run_id: str,
        *,
        on_progress: Callable[[RunInfo], None] | None = None,
        patience: float = 120.0,
    ) -> RunInfo:
        """Waits until a run has ended; its state says how.

        Args:
            on_progress: called at each change.
            patience: seconds for which the service may be away without a break.
        """
        last: RunInfo | None = None
        async for last in self.watch(run_id, patience=patience):
            if on_progress:
                on_progress(last)
        return last if last is not None else await self.get(run_id)

    async def _changes(
        self, run_id: str, after_step: int, timeout: float
    ) -> AsyncIterator[RunInfo]:
        request = pb.WatchRunRequest(run_id=run_id, after_step=after_step)
        stream = self._stub.WatchRun(request, timeout=timeout)
        try:
            replies = aiter(stream)
            while True:
                with self._connection.errors("WatchRun"):
                    reply = await anext(replies, None)
                if reply is None:
                    return
                yield run_of(reply.run)
        finally:
            stream.cancel()
