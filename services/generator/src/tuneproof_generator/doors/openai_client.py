"""The engine as vLLM's endpoints see it: admits and counts requests, and names who answers.

vLLM's endpoints take a request's id from the client's header `X-Request-Id`, and vLLM (0.32) aborts
by that id: one client could end the requests of another that sends the same id. So the engine gets
an id of ours. The client's id stays in the reply.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, aclosing
from contextvars import ContextVar
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from vllm.exceptions import RetryableRequestError, VLLMNotFoundError
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind

from tuneproof.servicekit.errors import TuneproofError
from tuneproof.servicekit.tracing import from_headers
from tuneproof_generator.accounting import account
from tuneproof_generator.adapters.traffic import Traffic
from tuneproof_generator.engine.vllm_engine import VllmEngine, stages_of

ADAPTER_HEADER = "x-tuneproof-adapter"
"""Header of a reply: `name@sha256:<hex>` of what served, absent for the base model. An alias may
point to two adapters, so the reply names the one that answered."""


class CountingClient:
    """vLLM's client, whose requests for an adapter are admitted and counted like those of gRPC."""

    def __init__(self, engine: VllmEngine, traffic: Traffic) -> None:
        self._engine = engine
        self._client: Any = engine.client
        self._traffic = traffic

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def generate(
        self,
        prompt: Any,
        sampling_params: Any,
        request_id: str,  # noqa: ARG002 - the client's, see above
        *,
        lora_request: LoRARequest | None = None,
        trace_headers: Mapping[str, str] | None = None,
        **others: Any,
    ) -> AsyncGenerator[Any, None]:
        # Not in the generator below: it runs after the reply has begun.
        if lora_request is not None and (reply := _reply.get()) is not None:
            reply.adapter = lora_request.lora_name
        own_id = f"openai-{uuid.uuid4().hex}"
        outputs = self._client.generate(
            prompt, sampling_params, own_id, lora_request=lora_request, **others
        )
        in_deltas = sampling_params.output_kind is RequestOutputKind.DELTA
        return self._counted(outputs, own_id, lora_request, trace_headers, in_deltas)

    async def _counted(
        self,
        outputs: AsyncGenerator[Any, None],
        request_id: str,
        adapter: LoRARequest | None,
        trace_headers: Mapping[str, str] | None,
        in_deltas: bool,
    ) -> AsyncGenerator[Any, None]:
        ref = adapter.lora_name if adapter else ""
        within = from_headers(trace_headers) if trace_headers else None
        async with aclosing(outputs):
            with ExitStack() as held:
                if adapter is not None:
                    self._admit(held, adapter, request_id)
                used = held.enter_context(account(ref, "openai", within))
                async for output in outputs:
                    parts = output.outputs
                    if not used.prompt_tokens:
                        used.prompt_tokens = len(output.prompt_token_ids or ())
                    if in_deltas or output.finished:
                        used.completion_tokens += sum(len(part.token_ids) for part in parts)
                    if output.finished:
                        used.finish = str(parts[0].finish_reason)
                        used.took(stages_of(output.metrics))
                        if any(part.finish_reason == "abort" for part in parts):
                            raise RetryableRequestError(
                                f"adapter {ref} was removed while it answered; ask another one"
                            )
                    yield output

    def _admit(self, held: ExitStack, adapter: LoRARequest, request_id: str) -> None:
        try:
            held.enter_context(
                self._traffic.enter(adapter.lora_int_id, lambda: self._engine.abort(request_id))
            )
        except TuneproofError as error:
            raise VLLMNotFoundError(f"{adapter.lora_name}: {error.message}") from error


class _Reply:
    """What is known of the reply to one HTTP request before it begins."""

    adapter = ""


_reply: ContextVar[_Reply | None] = ContextVar("reply", default=None)


class NamesAdapter:
    """Adds the reference of the adapter that serves to the headers of the reply."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = _Reply()
        _reply.set(reply)

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start" and reply.adapter:
                MutableHeaders(scope=message)[ADAPTER_HEADER] = reply.adapter
            await send(message)

        await self._app(scope, receive, send_named)
