"""vLLM's own OpenAI endpoints on the engine of this process.

Only the pool resolves names: base model, READY adapters, aliases. vLLM's own table of adapters
allocates engine ids too, so beside the pool's allocator the wrong adapter would answer (vLLM 0.32,
`OpenAIServingModels.resolve_lora`). It is not used.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator, Mapping, ValuesView
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.entrypoints.openai.chat_completion.api_router import attach_router as attach_chat
from vllm.entrypoints.openai.completion.api_router import attach_router as attach_completion
from vllm.entrypoints.serve.exception_handling.register import init_exception_handler
from vllm.lora.request import LoRARequest
from vllm.utils.argparse_utils import FlexibleArgumentParser

from tuneproof.servicekit.errors import TuneproofError
from tuneproof.servicekit.http_server import serving
from tuneproof.servicekit.server import Guard
from tuneproof_generator.adapters.lifecycle import AdapterState
from tuneproof_generator.adapters.traffic import Traffic
from tuneproof_generator.doors.openai_client import CountingClient, NamesAdapter
from tuneproof_generator.doors.tokens import guarded
from tuneproof_generator.engine.vllm_engine import VllmEngine, lora_request
from tuneproof_generator.pool.adapter_pool import AdapterPool

_GENERATING = {
    "openai_serving_chat": "create_chat_completion",
    "openai_serving_completion": "create_completion",
}
"""vLLM's endpoints that take `n` (0.32): their names in the app's state, and the methods that
answer. The batch endpoint refuses every `n` above 1 itself."""


@asynccontextmanager
async def openai_door(
    engine: VllmEngine,
    pool: AdapterPool,
    traffic: Traffic,
    door: socket.socket,
    *,
    guard: Guard,
    max_n: int,
    keep_alive_seconds: int,
    drain_seconds: float,
) -> AsyncIterator[None]:
    """Serves the OpenAI API until the context ends, then lets running requests end.

    Args:
        guard: checks the bearer tokens of requests, and encrypts.
        max_n: the largest `n` of a request.
        keep_alive_seconds: how long an idle connection stays open.
    """
    app = await _app(engine, pool, traffic, max_n=max_n)
    guarded(app, guard)
    async with serving(
        app, door, guard.tls, keep_alive_seconds=keep_alive_seconds, drain_seconds=drain_seconds
    ):
        yield


async def _app(engine: VllmEngine, pool: AdapterPool, traffic: Traffic, *, max_n: int) -> FastAPI:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    model = engine.client.vllm_config.model_config
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(
        ["--model", model.model, "--served-model-name", pool.base_model, "--enable-lora"]
    )
    client: Any = CountingClient(engine, traffic)
    await init_app_state(client, app.state, arguments, await client.get_supported_tasks())
    app.state.openai_serving_models.lora_requests = _ReadyAdapters(pool)
    for endpoint, call in _GENERATING.items():
        limit_n(getattr(app.state, endpoint), call, max_n)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": list(_cards(pool, model.max_model_len))}

    attach_chat(app)
    attach_completion(app)
    init_exception_handler(app)
    app.add_middleware(NamesAdapter)
    return app


def limit_n(endpoint: Any, call: str, max_n: int) -> None:
    """Makes an endpoint of vLLM refuse requests for more answers than `max_n`; vLLM itself takes
    16,384 (0.32)."""
    answer = getattr(endpoint, call)

    async def limited(request: Any, *others: Any, **more: Any) -> Any:
        if (request.n or 1) > max_n:
            return endpoint.create_error_response(
                f"n is {request.n}; this generator gives {max_n} answers to a request at most"
                " (--max-n): send several requests",
                param="n",
            )
        return await answer(request, *others, **more)

    setattr(endpoint, call, limited)


def _cards(pool: AdapterPool, max_model_len: int) -> Iterator[dict[str, Any]]:
    fixed = {"object": "model", "created": 0, "owned_by": "tuneproof"}
    yield {
        "id": pool.base_model,
        **fixed,
        "root": pool.base_model,
        "parent": None,
        "max_model_len": max_model_len,
    }
    for name, ref in _ready_names(pool).items():
        parent = pool.base_model if name == ref else ref
        yield {"id": name, **fixed, "root": ref, "parent": parent, "max_model_len": max_model_len}


def _ready_names(pool: AdapterPool) -> dict[str, str]:
    """References of READY adapters and the aliases that point to one, each with its reference."""
    ready = [
        view.record.ref for view in pool.views.list() if view.record.state is AdapterState.READY
    ]
    aliases = {
        name: alias.ref for name, alias in sorted(pool.routes.table.items()) if alias.ref in ready
    }
    return {ref: ref for ref in ready} | aliases


class _ReadyAdapters(Mapping[str, LoRARequest]):
    """Where vLLM's endpoints look names up: the pool at that moment."""

    def __init__(self, pool: AdapterPool) -> None:
        self._pool = pool

    def __getitem__(self, name: str) -> LoRARequest:
        try:
            adapter = self._pool.resolver.serving(name)
        except TuneproofError:
            raise KeyError(name) from None
        if adapter is None:
            raise KeyError(name)
        return lora_request(adapter)

    def __iter__(self) -> Iterator[str]:
        return iter(_ready_names(self._pool))

    def __len__(self) -> int:
        return len(_ready_names(self._pool))

    def values(self) -> ValuesView[LoRARequest]:
        """Empty: for each request vLLM searches them for adapters of other modalities."""
        return {}.values()
