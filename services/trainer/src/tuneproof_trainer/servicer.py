"""The gRPC face of the trainer: translates and delegates."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from tuneproof.trainer.v1 import trainer_pb2 as pb
from tuneproof.trainer.v1 import trainer_pb2_grpc
from tuneproof_trainer.messages import plan_to, run_to, spec_from
from tuneproof_trainer.plan.planner import Planner
from tuneproof_trainer.runs.runbook import Runbook

Context = grpc.aio.ServicerContext[Any, Any]


class TrainerServicer(trainer_pb2_grpc.TrainerServiceServicer):
    """See trainer.proto."""

    def __init__(self, runbook: Runbook, planner: Planner) -> None:
        self._runbook = runbook
        self._planner = planner

    async def CreateRun(self, request: pb.CreateRunRequest, _: Context) -> pb.CreateRunResponse:
        view = await self._runbook.create(request.run_id, spec_from(request.spec))
        return pb.CreateRunResponse(run=run_to(view))

    async def GetRun(self, request: pb.GetRunRequest, _: Context) -> pb.GetRunResponse:
        return pb.GetRunResponse(run=run_to(await self._runbook.get(request.run_id)))

    async def ListRuns(self, request: pb.ListRunsRequest, _: Context) -> pb.ListRunsResponse:
        views, token = await self._runbook.list_page(request.page_size, request.page_token)
        return pb.ListRunsResponse(runs=[run_to(view) for view in views], next_page_token=token)

    async def CancelRun(self, request: pb.CancelRunRequest, _: Context) -> pb.CancelRunResponse:
        return pb.CancelRunResponse(run=run_to(await self._runbook.cancel(request.run_id)))

    async def PlanRun(self, request: pb.PlanRunRequest, _: Context) -> pb.PlanRunResponse:
        return plan_to(await self._planner.plan(spec_from(request.spec), request.preview_lines))

    async def WatchRun(
        self, request: pb.WatchRunRequest, _: Context
    ) -> AsyncIterator[pb.WatchRunResponse]:
        async for view in self._runbook.watch(request.run_id, request.after_step):
            yield pb.WatchRunResponse(run=run_to(view))
