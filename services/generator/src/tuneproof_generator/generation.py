"""Answering one request: checks, the prompt's tokens, the stream of the answer."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field

from tuneproof.servicekit.errors import InvalidInput, Unavailable
from tuneproof_generator.accounting import account
from tuneproof_generator.adapters.traffic import Traffic
from tuneproof_generator.engine.protocol import Engine, Finish, Message, Sampling
from tuneproof_generator.pool.adapter_pool import AdapterPool

_MAX_STOPS = 16
# A longer text is tokenized in a thread, so that it does not delay other streams.
_LONG_TEXT = 20_000
_MAX_SEED = 2**64 - 1


@dataclass(frozen=True)
class Chat:
    """Turns for the model's own chat template."""

    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Tokens:
    """Raw token ids."""

    ids: tuple[int, ...]


@dataclass(frozen=True)
class GenerationRequest:
    """One request."""

    model: str
    prompt: Chat | Tokens | str
    """A chat, token ids, or a raw text."""
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True)
class GenerationOutcome:
    """What is known at the end."""

    finish: Finish
    prompt_ids: tuple[int, ...]
    completion_tokens: int
    cached_tokens: int
    adapter_ref: str
    """`name@sha256:<hex>` of what served; empty for the base model."""
    stage_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Piece:
    """A part of the answer."""

    text: str
    token_ids: tuple[int, ...]
    outcome: GenerationOutcome | None = None
    """With the last piece."""


class Generator:
    """Answers requests with the base model or an adapter of the pool."""

    def __init__(self, engine: Engine, pool: AdapterPool, traffic: Traffic) -> None:
        self._engine = engine
        self._pool = pool
        self._traffic = traffic

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        """Pieces, the last with the outcome. Closing the generator stops the work in the engine.

        Raises:
            InvalidInput: naming the field and its limit, before the engine sees anything.
            NotFound: for an unknown model.
            Unavailable: when the adapter is not READY, is removed meanwhile, or the engine died.
        """
        check_sampling(request.sampling, self._engine.facts.max_model_len)
        adapter = self._pool.resolver.serving(request.model)
        prompt = await self._encode(request.prompt)
        self._check_prompt(prompt)
        request_id = uuid.uuid4().hex
        ref = adapter.ref if adapter else ""
        # One generator and no layers: each costs time for every token.
        async with AsyncExitStack() as held:
            if adapter is not None:
                held.enter_context(
                    self._traffic.enter(adapter.engine_id, lambda: self._engine.abort(request_id))
                )
            used = held.enter_context(account(ref, "grpc"))
            used.prompt_tokens = len(prompt)
            chunks = await held.enter_async_context(
                aclosing(self._engine.generate(request_id, prompt, request.sampling, adapter))
            )
            async for chunk in chunks:
                used.completion_tokens += len(chunk.token_ids)
                if chunk.finish is Finish.ABORT:
                    used.finish = str(chunk.finish)
                    raise Unavailable(
                        f"adapter {ref} was removed while it answered; ask another one"
                    )
                outcome = None
                if chunk.finish is not None:
                    used.took(chunk.stage_seconds)
                    used.finish = str(chunk.finish)
                    outcome = GenerationOutcome(
                        chunk.finish,
                        tuple(prompt),
                        used.completion_tokens,
                        chunk.cached_tokens,
                        ref,
                        chunk.stage_seconds,
                    )
                if outcome or chunk.text or chunk.token_ids:
                    yield Piece(chunk.text, chunk.token_ids, outcome)

    async def _encode(self, prompt: Chat | Tokens | str) -> list[int]:
        if isinstance(prompt, Tokens):
            return list(prompt.ids)
        if isinstance(prompt, str):
            if len(prompt) > _LONG_TEXT:
                return await asyncio.to_thread(self._engine.encode_text, prompt)
            return self._engine.encode_text(prompt)
        _check_messages(prompt.messages)
        if sum(len(message.content) for message in prompt.messages) > _LONG_TEXT:
            return await asyncio.to_thread(self._engine.encode_chat, prompt.messages)
        return self._engine.encode_chat(prompt.messages)

    def _check_prompt(self, prompt: list[int]) -> None:
        facts = self._engine.facts
        if not prompt:
            raise InvalidInput("the prompt is empty; set chat, text or token_ids", field="prompt")
        if len(prompt) >= facts.max_model_len:
            raise InvalidInput(
                f"the prompt has {len(prompt)} tokens; the model's context of"
                f" {facts.max_model_len} holds prompt and answer, so {facts.max_model_len - 1} at"
                " most; shorten it",
                field="prompt",
                prompt_tokens=str(len(prompt)),
                limit=str(facts.max_model_len - 1),
            )
        worst = max(prompt)
        if worst >= facts.vocabulary:
            raise InvalidInput(
                f"token id {worst} is outside the vocabulary of {facts.vocabulary}",
                field="token_ids.ids",
            )


def check_sampling(sampling: Sampling, max_model_len: int) -> None:
    """Raises InvalidInput for the first value out of its range."""
    tokens, heat, mass = sampling.max_tokens, sampling.temperature, sampling.top_p
    seed, stop, context = sampling.seed, sampling.stop, max_model_len
    ranges = [
        ("max_tokens", tokens, 1 <= tokens <= context, f"1 to the model's context of {context}"),
        ("temperature", heat, 0 <= heat <= 2, "0 to 2"),
        ("top_p", mass, 0 < mass <= 1, "above 0, up to 1"),
        ("seed", seed, seed is None or 0 <= seed <= _MAX_SEED, f"0 to {_MAX_SEED}"),
        ("stop", f"{len(stop)} strings", len(stop) <= _MAX_STOPS, f"at most {_MAX_STOPS}"),
        ("stop", "an empty string", all(stop), "one or more characters each"),
    ]
    for name, value, is_good, limits in ranges:
        if not is_good:
            raise InvalidInput(
                f"sampling.{name} is {value}, not {limits}", field=f"sampling.{name}"
            )


def _check_messages(messages: Sequence[Message]) -> None:
    if not messages:
        raise InvalidInput("chat.messages is empty; send one message or more", field="chat")
    for index, message in enumerate(messages):
        if not message.role:
            raise InvalidInput(
                f"chat.messages[{index}] lacks a role; set system, user or assistant",
                field=f"chat.messages[{index}].role",
            )
    if not any(message.content.strip() for message in messages):
        raise InvalidInput("every message of the chat is empty", field="chat.messages")
