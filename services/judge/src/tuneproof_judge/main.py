"""Starts the judge."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
import structlog

from tuneproof.judge.v1 import judge_pb2, judge_pb2_grpc
from tuneproof.rubrics import RubricShelf
from tuneproof.servicekit.reloading import Reloaded, read_secret
from tuneproof.servicekit.server import Service, run
from tuneproof.servicekit.tls import ClientTls
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
    endpoint = endpoint_of(settings)
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


def endpoint_of(settings: JudgeSettings) -> OpenAIEndpoint | None:
    """The judge's endpoint, if the settings name one."""
    if not settings.endpoint_url:
        return None
    limits = EndpointLimits(settings.concurrency, settings.request_timeout, settings.max_attempts)
    folder = settings.endpoint_tls_dir
    return OpenAIEndpoint(
        settings.endpoint_url,
        settings.endpoint_model,
        _key_of(settings),
        limits,
        context=ClientTls(folder).context() if folder else None,
    )


def _key_of(settings: JudgeSettings) -> str | Callable[[], Awaitable[str]]:
    if (path := settings.api_key_file) is None:
        return settings.api_key.get_secret_value()
    file = Reloaded([path], lambda: read_secret(path, "the endpoint's key"))

    async def key() -> str:
        return file.now()

    return key


def main() -> int:
    """The console script."""
    return run(JudgeSettings, build, name="judge", examples=_EXAMPLES)
