"""vLLM's client, whose requests for adapters wait for their turn before the engine has them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from vllm.exceptions import RetryableRequestError

from tuneproof.servicekit.errors import Unavailable
from tuneproof_generator.engine.slots import Turns

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest


class TurnTakingClient:
    """An `AsyncLLM` for both doors and for the loading of adapters.

    Args:
        client: the real one; all that is not defined here is its own.
    """

    def __init__(self, client: Any, turns: Turns) -> None:
        self._client = client
        self._turns = turns

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
        """As vLLM's, for the base model at once.

        Raises:
            RetryableRequestError: when the request is aborted while it waits.
        """
        outputs: AsyncGenerator[Any, None] = self._client.generate(
            prompt, sampling_params, request_id, lora_request=lora_request, **others
        )
        if lora_request is None:
            return outputs
        return self._in_turn(lora_request.lora_int_id, request_id, outputs)

    async def abort(self, request_id: str) -> None:
        """Ends a request, in the engine or before it."""
        if not self._turns.dismiss(request_id):
            await self._client.abort(request_id)

    async def _in_turn(
        self, engine_id: int, request_id: str, outputs: AsyncGenerator[Any, None]
    ) -> AsyncGenerator[Any, None]:
        try:
            async with self._turns.hold(engine_id, request_id), aclosing(outputs):
                async for output in outputs:
                    yield output
        except Unavailable as error:
            raise RetryableRequestError(error.message) from error
