"""Starts the judge."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import structlog

from tuneproof.judge.v1 import judge_pb2, judge_pb2_grpc
from tuneproof.rubrics import RubricShelf
from tuneproof.servicekit.http_door import HttpDoor, Route
from tuneproof.servicekit.reloading import Reloaded, read_secret
from tuneproof.servicekit.server import Service, run
from tuneproof.servicekit.tls import ClientTls
from tuneproof_judge.batch.running import batched
from tuneproof_judge.cache import Cache, CachedEndpoint
from tuneproof_judge.choices import ChoicesEndpoint
from tuneproof_judge.endpoint import ChatEndpoint, EndpointLimits, OpenAIEndpoint
from tuneproof_judge.grading import Grader
from tuneproof_judge.jury import load_jury
from tuneproof_judge.prices import load_prices
from tuneproof_judge.servicer import JudgeServicer
from tuneproof_judge.settings import JudgeSettings
from tuneproof_judge.similarity import BertScore, EmbeddingSimilarity, Similarity

DESCRIPTOR = judge_pb2.DESCRIPTOR.services_by_name["JudgeService"]
_ROUTES = (
    Route("POST", "/v1/grade", "Grade", "Grade one answer by each of the named rubrics."),
    Route("POST", "/v1/grade/batch", "GradeBatch", "Grade many, each under an id of yours."),
    Route("POST", "/v1/compare", "Compare", "Say which of two answers is better."),
    Route("POST", "/v1/compare/batch", "CompareBatch", "Compare many pairs."),
    Route("POST", "/v1/steps", "DraftSteps", "Have the judge model write evaluation steps."),
    Route("GET", "/v1/rubrics", "ListRubrics", "List the rubrics, in pages."),
    Route("GET", "/v1/rubrics/{id}", "GetRubric", "Get one rubric, as accuracy@1."),
)
_EXAMPLES = (
    "example: tuneproof-judge --bind 127.0.0.1:50054"
    " --http-bind 127.0.0.1:8080"
    " --endpoint-url http://127.0.0.1:8000/v1 --endpoint-model my-judge"
)

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def build(settings: JudgeSettings) -> AsyncIterator[Service]:
    """The judge as the kit serves it."""
    rubrics = RubricShelf.load(settings.rubrics)
    prices = load_prices(settings.prices) if settings.prices else None
    endpoints = endpoints_of(settings)
    _log.info(
        "rubrics",
        ids=[rubric.id for rubric in rubrics],
        endpoint=", ".join(each.url for each in endpoints),
    )
    cache = Cache(settings.cache) if settings.cache else None

    async def check_ready() -> None:
        for endpoint in endpoints:
            await endpoint.check_ready()

    async with AsyncExitStack() as stack:
        if cache is not None:
            stack.callback(cache.close)
        asked: list[ChatEndpoint] = []
        for endpoint in endpoints:
            stack.push_async_callback(endpoint.close)
            asked.append(await _kept(stack, endpoint, cache, settings))
        servicer = JudgeServicer(
            Grader(rubrics, *asked, similarities=_similarities(stack, settings)),
            rubrics,
            batch_concurrency=settings.concurrency,
            prices=prices,
        )

        def register(server: grpc.aio.Server) -> None:
            judge_pb2_grpc.add_JudgeServiceServicer_to_server(servicer, server)

        yield Service(
            register=register,
            descriptors=[DESCRIPTOR],
            check_ready=check_ready,
            http=HttpDoor(settings.http_bind, DESCRIPTOR, servicer, _ROUTES, "tuneproof judge"),
        )


def _similarities(stack: AsyncExitStack, settings: JudgeSettings) -> list[Similarity]:
    found: list[Similarity] = []
    if settings.similarity_url:
        embeddings = EmbeddingSimilarity(
            settings.similarity_url,
            settings.similarity_model,
            _key_of(settings.similarity_key_file),
            settings.request_timeout,
        )
        stack.push_async_callback(embeddings.close)
        found.append(embeddings)
    if settings.bertscore is not None and settings.bertscore_layer is not None:
        found.append(BertScore(settings.bertscore, settings.bertscore_layer))
    return found


async def _kept(
    stack: AsyncExitStack, endpoint: OpenAIEndpoint, cache: Cache | None, settings: JudgeSettings
) -> ChatEndpoint:
    """The endpoint, with what the settings put before it."""
    if settings.batch and settings.cache and cache:
        return await stack.enter_async_context(
            batched(
                endpoint,
                cache,
                settings.cache,
                poll=settings.batch_poll,
                attempts=settings.max_attempts,
            )
        )
    asked = ChoicesEndpoint(endpoint, min(settings.choices, settings.concurrency))
    return CachedEndpoint(asked, cache) if cache else asked


def endpoints_of(settings: JudgeSettings) -> list[OpenAIEndpoint]:
    """The judge's endpoint, if the settings name one, or those of its jury."""
    limits = EndpointLimits(
        settings.concurrency,
        settings.request_timeout,
        settings.max_attempts,
        structured=settings.structured,
    )
    if settings.jury:
        return [
            OpenAIEndpoint(each.url, each.model, _key_of(each.api_key_file), limits)
            for each in load_jury(settings.jury).judges
        ]
    if not settings.endpoint_url:
        return []
    folder = settings.endpoint_tls_dir
    key = _key_of(settings.api_key_file, settings.api_key.get_secret_value())
    return [
        OpenAIEndpoint(
            settings.endpoint_url,
            settings.endpoint_model,
            key,
            limits,
            context=ClientTls(folder).context() if folder else None,
        )
    ]


def _key_of(path: Path | None, given: str = "") -> str | Callable[[], Awaitable[str]]:
    if path is None:
        return given
    file = Reloaded([path], lambda: read_secret(path, "the endpoint's key"))

    async def key() -> str:
        return file.now()

    return key


def main() -> int:
    """The console script."""
    return run(JudgeSettings, build, name="judge", examples=_EXAMPLES)
