"""Trainers that train nothing, in a process: the contract's states, losses by formula.

    python fake_trainer.py COUNT

It prints so many addresses, each of a trainer of its own, then serves without end. What a test
wants to go wrong, it says by adapter names: runs of `bad…` fail at their second step, those of
`slow…` go on until they are cancelled.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time

from tuneproof.servicekit import errors
from tuneproof.servicekit.calls import CallInterceptor
from tuneproof.servicekit.logs import configure_logging
from tuneproof.servicekit.paging import page
from tuneproof.servicekit.server import Service, make_server
from tuneproof.trainer.v1 import trainer_pb2 as pb
from tuneproof.trainer.v1 import trainer_pb2_grpc as stubs

STEPS = 6
STEP_SECONDS = 0.01
ENDED = (pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED, pb.RUN_STATE_CANCELLED)


def validation_loss(rank: int, learning_rate: float) -> float:
    """Lowest at rank 16 and a learning rate of 1e-3."""
    return 1 + abs(rank - 16) / 100 + (math.log10(learning_rate) + 3) ** 2 / 10


class Trainer(stubs.TrainerServiceServicer):
    """Runs train at the same time; the last step is validated."""

    def __init__(self) -> None:
        self._runs: dict[str, pb.Run] = {}
        self._changed = asyncio.Condition()
        self._training: set[asyncio.Task[None]] = set()

    async def CreateRun(self, request, context):
        known = self._runs.get(request.run_id)
        if known is None:
            run = pb.Run(id=request.run_id, spec=request.spec, state=pb.RUN_STATE_QUEUED)
            run.spec.base_model = run.spec.base_model or "toy"
            run.create_time.FromSeconds(1_000_000 + len(self._runs))
            self._runs[run.id] = known = run
            self._training.add(asyncio.create_task(self._train(run)))
        return pb.CreateRunResponse(run=known)

    async def PlanRun(self, request, context):
        plan = pb.PlanRunResponse(
            spec=request.spec, total_steps=STEPS, total_tokens=900, accumulation=4, devices=1
        )
        if request.spec.adapter_name.startswith("bad"):
            plan.findings.add(code="data", message="x: line 2 is not JSON", refused=True)
            return plan
        plan.counts.CopyFrom(pb.DataCounts(examples=12, validation_examples=3, answer_tokens=40))
        plan.memory.add(name="kept", bytes=3 << 30)
        plan.memory.add(name="activations", bytes=1 << 20)
        plan.device_memory_bytes = 80 << 30
        plan.duration.FromSeconds(4000)
        plan.tokens_per_second, plan.measured_runs = 5120, 2
        plan.unquantised.append("the norms")
        plan.findings.add(code="duplicate", message="2 examples repeat", lines=[4, 7])
        for line in request.preview_lines or [1]:
            shown = plan.previews.add(line=line)
            shown.pieces.add(token_id=5, text="what? ")
            shown.pieces.add(token_id=6, text="this", learned=True)
            shown.pieces.add(token_id=1, text="</s>", learned=True)
        return plan

    async def GetRun(self, request, context):
        return pb.GetRunResponse(run=self._known(request.run_id))

    async def ListRuns(self, request, context):
        newest = sorted(self._runs.values(), key=_key)
        some, token = page(newest, 2, request.page_token, _key)
        bare = []
        for run in some:
            bare.append(pb.Run())
            bare[-1].CopyFrom(run)
            bare[-1].ClearField("losses")
        return pb.ListRunsResponse(runs=bare, next_page_token=token)

    async def CancelRun(self, request, context):
        run = self._known(request.run_id)
        if run.state in (pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED):
            raise errors.WrongState(f"run {run.id} has ended; it is too late to cancel it")
        await self._set(run, pb.RUN_STATE_CANCELLED)
        return pb.CancelRunResponse(run=run)

    async def WatchRun(self, request, context):
        run = self._known(request.run_id)
        told = request.after_step
        while True:
            answer = pb.WatchRunResponse(run=run)
            answer.run.ClearField("losses")
            answer.run.losses.extend(point for point in run.losses if point.step > told)
            told = run.losses[-1].step if run.losses else told
            yield answer
            if answer.run.state in ENDED:
                return
            async with self._changed:
                while run.state == answer.run.state and len(run.losses) <= told:
                    await self._changed.wait()

    def _known(self, run_id: str) -> pb.Run:
        if run_id not in self._runs:
            raise errors.NotFound(f"no run {run_id!r}")
        return self._runs[run_id]

    async def _train(self, run: pb.Run) -> None:
        given = run.spec.hyperparameters
        begun = time.time()
        run.start_time.FromNanoseconds(int(begun * 1e9))
        await self._set(run, pb.RUN_STATE_RUNNING)
        for step in range(1, STEPS + 1):
            await asyncio.sleep(STEP_SECONDS)
            if run.state == pb.RUN_STATE_CANCELLED:
                return
            if run.spec.adapter_name.startswith("bad") and step == 2:
                run.reason = "the loss became nan at step 2"
                await self._set(run, pb.RUN_STATE_FAILED)
                return
            run.progress.step, run.progress.total_steps = step, STEPS
            run.progress.loss, run.progress.tokens_per_second = 2 / step, 1234.0
            run.progress.eta.FromSeconds(STEPS - step)
            point = run.losses.add(step=step, loss=2 / step)
            if step == STEPS and given.validation_share:
                point.validation_loss = validation_loss(
                    given.rank or 16, given.learning_rate or 2e-4
                )
            await self._set(run, run.state)
            while run.spec.adapter_name.startswith("slow") and step == 3:
                await asyncio.sleep(STEP_SECONDS)
                if run.state == pb.RUN_STATE_CANCELLED:
                    return
        run.end_time.FromNanoseconds(int((begun + 36.0) * 1e9))
        run.adapter_ref = f"{run.spec.adapter_name}@sha256:{run.id[-8:].encode().hex():0>64}"
        await self._set(run, pb.RUN_STATE_SUCCEEDED)

    async def _set(self, run: pb.Run, state: int) -> None:
        async with self._changed:
            run.state = state
            if state in ENDED and not run.HasField("end_time"):
                run.end_time.GetCurrentTime()
            self._changed.notify_all()


def _key(run: pb.Run) -> str:
    return f"{10**12 - run.create_time.seconds:020}"


async def serve(count: int) -> None:
    """Serves without end."""
    configure_logging("trainer", level="warning", as_json=False)
    servers = [_server(Trainer()) for _ in range(count)]
    addresses = [f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}" for server in servers]
    for server in servers:
        await server.start()
    print(*addresses, flush=True)
    await asyncio.Event().wait()


def _server(trainer: Trainer):
    async def ready() -> None: ...

    def register(server) -> None:
        stubs.add_TrainerServiceServicer_to_server(trainer, server)

    service = Service(register, list(pb.DESCRIPTOR.services_by_name.values()), ready)
    return make_server(service, CallInterceptor(service.descriptors, None), 2**20)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
