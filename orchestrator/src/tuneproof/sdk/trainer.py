"""Client of the trainer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from dataclasses import replace

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.sdk.client import Client
from tuneproof.sdk.planning import DataCounts, RunPlan
from tuneproof.sdk.runs import RunInfo, RunProgress, RunSpec
from tuneproof.servicekit.errors import DeadlineExceeded, Overloaded, Unavailable
from tuneproof.servicekit.messages import message_of, value_from, values_of
from tuneproof.servicekit.retries import Patience, Retries
from tuneproof.trainer.v1 import trainer_pb2 as pb
from tuneproof.trainer.v1.trainer_pb2_grpc import TrainerServiceStub

_AWAY = Retries(first=0.2, longest=5.0)


class TrainerClient(Client):
    """Trains adapters; see `Client` for the errors."""

    service, contract, stubs = "trainer", pb.DESCRIPTOR, (TrainerServiceStub,)

    async def create(self, run_id: str, spec: RunSpec, *, timeout: float = 60.0) -> RunInfo:
        """Queues a run, or gives the one that exists with this id and spec.

        Raises:
            AlreadyExists: when a run with another spec has the id.
            InvalidInput: for a method or a schedule that is not known.
        """
        reply = await self._call(pb.CreateRunRequest(run_id=run_id, spec=_asked(spec)), timeout)
        return _run(reply.run)

    async def plan(
        self, spec: RunSpec, *, preview_lines: Iterable[int] = (), timeout: float = 330.0
    ) -> RunPlan:
        """What a run of a spec would do, without making one.

        Args:
            preview_lines: of the data, to show as tokens; none: the first example.

        Raises:
            InvalidInput: with every mistake in the spec. Mistakes in the data are findings.
        """
        request = pb.PlanRunRequest(spec=_asked(spec), preview_lines=preview_lines)
        reply = await self._call(request, timeout)
        counts, has_time = reply.HasField("counts"), reply.HasField("duration")
        return value_from(
            RunPlan,
            reply,
            spec=_spec(reply.spec),
            counts=value_from(DataCounts, reply.counts) if counts else None,
            memory={part.name: part.bytes for part in reply.memory},
            seconds=reply.duration.ToTimedelta().total_seconds() if has_time else None,
        )

    async def get(self, run_id: str, *, timeout: float = 30.0) -> RunInfo:
        """A run by id."""
        return _run((await self._call(pb.GetRunRequest(run_id=run_id), timeout)).run)

    async def list(self, *, timeout: float = 30.0) -> list[RunInfo]:
        """All runs, the newest first, without their losses."""
        return [_run(run) for run in await self._entries(pb.ListRunsRequest(), "runs", timeout)]

    async def cancel(self, run_id: str, *, timeout: float = 60.0) -> RunInfo:
        """Stops a run that has not ended.

        Raises:
            WrongState: when it has succeeded or failed.
        """
        return _run((await self._call(pb.CancelRunRequest(run_id=run_id), timeout)).run)

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
        validation: dict[int, float] = {}
        away = Patience(_AWAY, patience)
        while True:
            failure: Unavailable | Overloaded = Unavailable(
                f"{self._connection.peer} ends each watch of run {run_id} before the run does"
            )
            try:
                last = max(losses, default=0)
                request = pb.WatchRunRequest(run_id=run_id, after_step=last)
                async with aclosing(self._replies(request, timeout)) as replies:
                    async for reply in replies:
                        run = _run(reply.run)
                        losses.update(run.losses)
                        validation.update(run.validation_losses)
                        away.answered()
                        yield replace(
                            run,
                            losses=tuple(sorted(losses.items())),
                            validation_losses=tuple(sorted(validation.items())),
                        )
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


def _asked(spec: RunSpec) -> pb.RunSpec:
    """The message for a spec, without the hyper-parameters that are not set."""
    files = {
        name: pb.TrainingData(path=path, digest=digest)
        for name, path, digest in (
            ("data", spec.data_path, spec.data_digest),
            ("validation", spec.validation_path, spec.validation_digest),
            ("held_out", spec.held_out_path, spec.held_out_digest),
        )
        if path or digest
    }
    given = spec.hyperparameters.model_dump(exclude_unset=True)
    hyperparameters = message_of(pb.Hyperparameters, **given)
    return message_of(pb.RunSpec, spec, hyperparameters=hyperparameters, **files)


def _spec(message: pb.RunSpec) -> RunSpec:
    # Not validated: a trainer of another version may allow other values.
    given = Hyperparameters.model_construct(**values_of(message.hyperparameters))
    return value_from(
        RunSpec,
        message,
        data_path=message.data.path,
        data_digest=message.data.digest,
        validation_path=message.validation.path,
        validation_digest=message.validation.digest,
        held_out_path=message.held_out.path,
        held_out_digest=message.held_out.digest,
        hyperparameters=given,
    )


def _run(message: pb.Run) -> RunInfo:
    eta = message.progress.eta.ToTimedelta().total_seconds()
    return value_from(
        RunInfo,
        message,
        spec=_spec(message.spec),
        progress=value_from(RunProgress, message.progress, eta_seconds=eta),
        losses=tuple((point.step, point.loss) for point in message.losses),
        validation_losses=tuple(
            (point.step, point.validation_loss)
            for point in message.losses
            if point.HasField("validation_loss")
        ),
    )
