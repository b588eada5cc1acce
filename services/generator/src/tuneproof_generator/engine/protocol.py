"""What the generator asks of an inference engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: str
    """`system`, `user` or `assistant`."""
    content: str


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; checked by `generation` before an engine sees it."""

    max_tokens: int = 256
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


class Finish(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True)
class Chunk:
    """A part of an answer."""

    text: str
    token_ids: tuple[int, ...]
    finish: Finish | None = None
    """Set in the last chunk."""
    cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache; in the last chunk."""
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    """`queue`, `first_token`, `decode`; in the last chunk."""


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter as the engine knows it."""

    ref: str
    """`name@sha256:<hex>`; also its name in the engine, so that the prefix cache, whose keys hold
    that name, never mixes two contents."""
    engine_id: int
    """Positive; given once in the life of the process."""
    folder: Path
    """The engine may read it again at any time until `unload` has returned (vLLM 0.32 ends when the
    folder of an adapter that it evicted is gone)."""


@dataclass(frozen=True)
class WorkerAdapters:
    """The adapters, by engine id, that one of the engine's workers holds now."""

    host: frozenset[int]
    """In host memory."""
    slots: frozenset[int]
    """In the slots from which a batch computes."""
    pinned: frozenset[int] = frozenset()
    """Never evicted."""


@dataclass(frozen=True)
class EngineFacts:
    """What an engine is, and its limits."""

    dtype: str
    """Of the weights as served: `float32`, `bfloat16` …"""
    max_model_len: int
    """Tokens of prompt and answer together."""
    max_lora_rank: int
    max_loras: int
    """Different adapters in one batch."""
    max_cpu_loras: int
    """Adapters in host memory."""
    vocabulary: int
    """Token ids are below it."""
    version: str


class Engine(Protocol):
    """An engine with one base model and any number of adapters."""

    @property
    def facts(self) -> EngineFacts:
        """What it is, and its limits."""

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the model's own chat template with the generation prompt.

        Raises:
            InvalidInput: when there is no template, or it refuses the messages.
        """

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a raw text, with the special tokens that the tokenizer adds itself."""

    def encode_probe(self, question: str) -> list[int]:
        """Token ids of one of the fixed questions, as the trainer makes them: by `encode_chat`,
        but on a fixed day; as a raw text when there is no template."""

    def encode_continuation(self, text: str) -> list[int]:
        """The first token ids of a text that follows a prompt, without special tokens."""

    async def score(
        self,
        request_id: str,
        prompt: Sequence[int],
        tokens: Sequence[int],
        adapter: LoadedAdapter | None,
    ) -> tuple[float, ...]:
        """The log-probabilities, in nats, of fixed tokens after a prompt. Also generates a token.

        Raises:
            Unavailable: when the engine is dead.
        """

    def generate(
        self,
        request_id: str,
        prompt: Sequence[int],
        sampling: Sampling,
        adapter: LoadedAdapter | None,
    ) -> AsyncGenerator[Chunk, None]:
        """Chunks of one answer. Closing the generator, or cancelling it, stops the work.

        Raises:
            Unavailable: when the engine is dead.
        """

    async def abort(self, request_id: str) -> None:
        """Ends a request; its last chunk says `Finish.ABORT`."""

    async def load(self, adapter: LoadedAdapter) -> None:
        """Reads an adapter into host memory.

        Raises:
            InvalidInput: when the engine refuses it.
        """

    async def unload(self, adapter: LoadedAdapter) -> None:
        """Unloads an adapter; afterwards its files may be deleted."""

    async def workers(self) -> Sequence[WorkerAdapters]:
        """What each worker holds. Answered between two steps of the engine.

        Raises:
            Unavailable: when they do not answer.
        """

    async def check(self) -> None:
        """Raises Unavailable when the engine is dead."""
