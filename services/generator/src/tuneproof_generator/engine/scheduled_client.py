"""vLLM's client, whose requests for adapters wait for a slot before the engine sees them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from vllm.exceptions import RetryableRequestError

from tuneproof.servicekit.errors import Unavailable
from tuneproof_generator.engine.slots import SlotScheduler

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest


class ScheduledClient:
    """An `AsyncLLM` for both doors and for the loading of adapters.

    Args:
        client: vLLM's own; it answers all that this class does not define.
    """

    def __init__(self, client: Any, scheduler: SlotScheduler) -> None:
        self._client = client
        self._scheduler = scheduler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def generate(
        self,
        prompt: Any,
        sampling_params: Any,
        request_id: str,
        *,
        lora_request: LoRARequest | None = None,
        **others: Any,
    ) -> AsyncGenerator[Any, None]:
        """As vLLM's. A request for the base model never waits.

        Raises:
            RetryableRequestError: when the request is aborted while it waits.
        """
        outputs: AsyncGenerator[Any, None] = self._client.generate(
            prompt, sampling_params, request_id, lora_request=lora_request, **others
        )
        if lora_request is None:
            return outputs
        return self._scheduled(lora_request.lora_int_id, request_id, outputs)

    async def abort(self, request_id: str) -> None:
        """Ends a request, in the engine or before it."""
        if not self._scheduler.abort(request_id):
            await self._client.abort(request_id)

    async def _scheduled(
        self, engine_id: int, request_id: str, outputs: AsyncGenerator[Any, None]
    ) -> AsyncGenerator[Any, None]:
        try:
            async with self._scheduler.admit(engine_id, request_id), aclosing(outputs):
                async for output in outputs:
                    yield output
        except Unavailable as error:
            raise RetryableRequestError(error.message) from error
