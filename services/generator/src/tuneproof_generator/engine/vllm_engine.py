"""vLLM's AsyncLLM as the generator's engine, in this process."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import vllm
from transformers import AutoTokenizer
from vllm import SamplingParams
from vllm.exceptions import RetryableRequestError
from vllm.inputs.engine import tokens_input
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from tuneproof.adapters.fingerprint import prompt_of, tokens_of
from tuneproof.servicekit.errors import InvalidInput, Unavailable
from tuneproof_generator.engine.arguments import EngineOptions, engine_arguments
from tuneproof_generator.engine.protocol import (
    Chunk,
    EngineFacts,
    Finish,
    LoadedAdapter,
    Message,
    Sampling,
    WorkerAdapters,
)
from tuneproof_generator.engine.scheduled_client import ScheduledClient
from tuneproof_generator.engine.slots import SlotScheduler

_SHUTDOWN_SECONDS = 10.0
_DEAD = "the engine is dead; restart the service"


def lora_request(adapter: LoadedAdapter) -> LoRARequest:
    """An adapter as vLLM takes it. Never with `load_inplace`, which reads the disk again for each
    request."""
    return LoRARequest(
        lora_name=adapter.ref, lora_int_id=adapter.engine_id, lora_path=str(adapter.folder)
    )


@asynccontextmanager
async def start_engine(options: EngineOptions) -> AsyncIterator[VllmEngine]:
    """Starts an engine, and ends its processes afterwards. Takes half a minute or more.

    The event loop runs on meanwhile, so that the service's health server answers.

    Raises:
        InvalidInput: when the model cannot be served with these options.
    """
    arguments = engine_arguments(options)
    start = asyncio.create_task(asyncio.to_thread(_start, arguments))
    try:
        client = await asyncio.shield(start)
    except asyncio.CancelledError:
        for child in multiprocessing.active_children():
            child.kill()
        await asyncio.gather(start, return_exceptions=True)
        raise
    try:
        tokenizer = await asyncio.to_thread(AutoTokenizer.from_pretrained, str(options.folder))
        scheduler = SlotScheduler(options.max_loras, options.slot_seconds)
        yield VllmEngine(ScheduledClient(client, scheduler), tokenizer)
    finally:
        # Else it logs the engine core's normal end as a death.
        if client.output_handler is not None:
            client.output_handler.cancel()
        await asyncio.to_thread(client.shutdown, _SHUTDOWN_SECONDS)


def _start(arguments: Any) -> AsyncLLM:
    try:
        client = AsyncLLM.from_engine_args(arguments)
    except (ValueError, RuntimeError, OSError) as error:
        raise InvalidInput(
            f"vLLM cannot serve {arguments.model}: {error}; its log lines above say more"
        ) from error
    # Else vLLM (0.32) parses an environment variable anew for every token.
    vllm.envs.enable_envs_cache()
    return client


class VllmEngine:
    """An `Engine`. `client` is for vLLM's own HTTP endpoints."""

    def __init__(self, client: ScheduledClient, tokenizer: Any) -> None:
        self.client = client
        self._tokenizer = tokenizer
        config = client.vllm_config
        self._facts = EngineFacts(
            dtype=str(config.model_config.dtype).removeprefix("torch."),
            max_model_len=config.model_config.max_model_len,
            max_lora_rank=config.lora_config.max_lora_rank,
            max_loras=config.lora_config.max_loras,
            max_cpu_loras=config.lora_config.max_cpu_loras,
            vocabulary=config.model_config.get_vocab_size(),
            version=f"vllm {vllm.__version__}",
        )

    @property
    def facts(self) -> EngineFacts:
        return self._facts

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            ids = self._tokenizer.apply_chat_template(
                turns, tokenize=True, add_generation_prompt=True, return_dict=False
            )
        except Exception as error:  # A template raises whatever it likes.
            raise InvalidInput(
                f"the model's chat template refuses the messages: {error}", field="chat.messages"
            ) from error
        return list(ids)

    def encode_text(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text))

    def encode_probe(self, question: str) -> list[int]:
        return prompt_of(self._tokenizer, question)

    def encode_continuation(self, text: str) -> list[int]:
        return tokens_of(self._tokenizer, text)

    async def score(
        self,
        request_id: str,
        prompt: Sequence[int],
        tokens: Sequence[int],
        adapter: LoadedAdapter | None,
    ) -> tuple[float, ...]:
        outputs = self.client.generate(
            tokens_input([*prompt, *tokens]) | {"arrival_time": time.time()},
            # vLLM then computes the whole prompt anew: a cached block has no log-probabilities.
            SamplingParams(
                max_tokens=1,
                temperature=0.0,
                prompt_logprobs=0,
                output_kind=RequestOutputKind.FINAL_ONLY,
            ),
            request_id,
            lora_request=lora_request(adapter) if adapter else None,
        )
        try:
            async with aclosing(outputs):
                (output,) = [each async for each in outputs]
        except EngineDeadError as error:
            raise Unavailable(_DEAD) from error
        except RetryableRequestError as error:
            raise Unavailable(str(error)) from error
        rows = (output.prompt_logprobs or ())[len(prompt) :]
        if len(rows) != len(tokens):
            raise Unavailable(f"the engine ended {request_id} without log-probabilities")
        return tuple(float(row[token].logprob) for row, token in zip(rows, tokens, strict=True))

    async def generate(
        self,
        request_id: str,
        prompt: Sequence[int],
        sampling: Sampling,
        adapter: LoadedAdapter | None,
    ) -> AsyncGenerator[Chunk, None]:
        outputs = self.client.generate(
            tokens_input(list(prompt)) | {"arrival_time": time.time()},
            _sampling_params(sampling),
            request_id,
            lora_request=lora_request(adapter) if adapter else None,
        )
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    yield _chunk(output)
        except EngineDeadError as error:
            raise Unavailable(_DEAD) from error
        except RetryableRequestError as error:
            raise Unavailable(str(error)) from error

    async def abort(self, request_id: str) -> None:
        await self.client.abort(request_id)

    async def load(self, adapter: LoadedAdapter) -> None:
        try:
            await self.client.add_lora(lora_request(adapter))
        except EngineDeadError as error:
            raise Unavailable(_DEAD) from error
        except Exception as error:  # vLLM hands on what its worker raised.
            raise InvalidInput(f"the engine refuses {adapter.ref}: {error}") from error

    async def unload(self, adapter: LoadedAdapter) -> None:
        try:
            await self.client.remove_lora(adapter.engine_id)
        except EngineDeadError as error:
            raise Unavailable(_DEAD) from error

    async def workers(self) -> Sequence[WorkerAdapters]:
        try:
            told = await self.client.collective_rpc("adapters_held")
        except EngineDeadError as error:
            raise Unavailable(_DEAD) from error
        except Exception as error:  # vLLM hands on what its worker raised.
            raise Unavailable(f"the engine's workers do not say what they hold: {error}") from error
        return [WorkerAdapters(*map(frozenset, held)) for held in told]

    async def check(self) -> None:
        if self.client.errored:
            raise Unavailable(_DEAD)


def _sampling_params(sampling: Sampling) -> SamplingParams:
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
        stop=list(sampling.stop),
        output_kind=RequestOutputKind.DELTA,
    )


def _chunk(output: Any) -> Chunk:
    part = output.outputs[0]
    ids = tuple(part.token_ids)
    if not output.finished:
        return Chunk(part.text, ids)
    return Chunk(
        part.text,
        ids,
        finish=Finish(part.finish_reason),
        cached_tokens=output.num_cached_tokens or 0,
        stage_seconds=stages_of(output.metrics),
    )


def stages_of(stats: Any) -> dict[str, float]:
    """Times by the engine core's clock; none for a request that ended before it was scheduled."""
    if stats is None or not stats.first_token_ts:
        return {}
    return {
        "queue": stats.scheduled_ts - stats.queued_ts,
        "first_token": stats.first_token_ts - stats.scheduled_ts,
        "decode": stats.last_token_ts - stats.first_token_ts,
    }
