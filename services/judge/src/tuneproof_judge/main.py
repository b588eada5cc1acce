"""Starts the judge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import structlog

from tuneproof.judge.v1 import judge_pb2, judge_pb2_grpc
from tuneproof.rubrics import RubricShelf
from tuneproof.servicekit.server import Service, run
from tuneproof_judge.endpoint import EndpointLimits, OpenAIEndpoint
from tuneproof_judge.grading import Grader
from tuneproof_judge.servicer import JudgeServicer
from tuneproof_judge.settings import JudgeSettings

DESCRIPTOR = judge_pb2.DESCRIPTOR.services_by_name["JudgeService"]
_EXAMPLES = (
    "example: tuneproof-judge --bind 127.0.0.1:50054"
    " --endpoint-url http://127.0.0.1:8000/v1 --endpoint-model my-judge"
)

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def build(settings: JudgeSettings) -> AsyncIterator[Service]:
    """The judge as the kit serves it."""
    rubrics = RubricShelf.load(settings.rubrics)
    endpoint = _endpoint_of(settings)
    _log.info(
        "rubrics", ids=[rubric.id for rubric in rubrics], endpoint=endpoint.url if endpoint else ""
    )
    grader = Grader(rubrics, endpoint)
    servicer = JudgeServicer(grader, rubrics, batch_concurrency=settings.concurrency)

    def register(server: grpc.aio.Server) -> None:
        judge_pb2_grpc.add_JudgeServiceServicer_to_server(servicer, server)

    async def check_ready() -> None:
        if endpoint is not None:
            await endpoint.check_ready()

    try:
        yield Service(register=register, descriptors=[DESCRIPTOR], check_ready=check_ready)
    finally:
        if endpoint is not None:
            await endpoint.close()


def _endpoint_of(settings: JudgeSettings) -> OpenAIEndpoint | None:
    if not settings.endpoint_url:
        return None
    limits = EndpointLimits(settings.concurrency, settings.request_timeout, settings.max_attempts)
    key = settings.api_key.get_secret_value()
    return OpenAIEndpoint(settings.endpoint_url, settings.endpoint_model, key, limits)


def main() -> int:
    """The console script."""
    return run(JudgeSettings, build, name="judge", examples=_EXAMPLES)
