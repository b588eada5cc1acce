"""An embedder on a server that speaks OpenAI's protocol (POST /embeddings), as vLLM does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import openai

from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import InvalidInput, TuneproofError, Unavailable
from tuneproof.servicekit.retries import Sleep
from tuneproof.servicekit.tracing import headers
from tuneproof_retriever.corpus import EmbedderIdentity, Vector, Vectors
from tuneproof_retriever.embedders.local_tokens import LocalTokens
from tuneproof_retriever.embedders.protocol import Offsets, check_query_length
from tuneproof_retriever.embedders.text_batches import BatchLimits, embed_in_batches, unit_rows
from tuneproof_retriever.endpoint import Endpoint, Requests

# OpenAI's own limit is 300,000; other servers have none, and answer shorter requests sooner.
_TOKENS_PER_REQUEST = 100_000
_PROBE_SECONDS = 5.0


@dataclass(frozen=True)
class ServedModel:
    """A model on the server, with what the protocol does not tell."""

    name: str = ""
    """As the server lists it; empty: the only one that it lists."""
    revision: str = ""
    """Any mark that tells its weights from other ones of that name."""
    max_tokens: int = 0
    """Longest input, special tokens included; 0: what the server's list says (vLLM's does)."""
    query_prompt: str = ""
    """Put before each query."""
    passage_prompt: str = ""
    """Put before each passage."""


class OpenAIEmbedder:
    """See `Embedder`. Use `open_openai_embedder` to get one."""

    def __init__(
        self,
        endpoint: Endpoint,
        served: ServedModel,
        tokens: LocalTokens,
        *,
        batch_size: int,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._endpoint = endpoint
        self._served = served
        self._tokens = tokens
        self._batch_size = batch_size
        self._requests = Requests(endpoint, self._translated, sleep=sleep)
        # The client insists on a key; a server without one ignores it. It would retry without
        # knowing the call's deadline.
        self._client = openai.AsyncOpenAI(
            base_url=endpoint.url,
            api_key=endpoint.api_key or "none",
            max_retries=0,
            timeout=endpoint.request_timeout,
        )
        self._identity: EmbedderIdentity | None = None

    @property
    def identity(self) -> EmbedderIdentity:
        if self._identity is None:
            raise AssertionError("learn() comes first")
        return self._identity

    async def learn(self, *, deadline: float) -> None:
        """Asks for the model's name, its limit and the length of its vectors, until all answer.

        Raises:
            InvalidInput: when these do not fit the settings.
        """
        listed = await self._requests.send(self._listed, deadline=deadline)
        name = self._served.name or self._only(listed)
        longest = self._served.max_tokens or listed.get(name, 0)
        if not longest:
            raise InvalidInput(
                f"{self._endpoint.shown} does not tell how many tokens {name} reads; set"
                " --embedder-max-tokens",
                field="embedder_max_tokens",
            )
        prompts = [self._served.query_prompt, self._served.passage_prompt]
        room = longest - self._tokens.special - max(map(self._tokens.count, prompts))
        [probe] = await self._requests.send(lambda: self._ask(["."], name), deadline=deadline)
        content = ["openai", name, self._served.revision, self._tokens.digest, prompts]
        self._identity = EmbedderIdentity(name, sha256_of_json(content), len(probe), room)
        unit_rows(np.asarray([probe]), self._identity, 1)

    async def offsets(
        self,
        texts: Sequence[str],
        *,
        deadline: float | None = None,  # noqa: ARG002 - see `Embedder`
    ) -> list[Offsets]:
        """By the tokenizer in this process."""
        return await self._tokens.offsets(texts)

    async def embed_passages(
        self, texts: Sequence[str], *, deadline: float | None = None
    ) -> Vectors:
        return await self._embed(texts, self._served.passage_prompt, deadline)

    async def embed_query(self, text: str, *, deadline: float | None = None) -> Vector:
        [tokens] = await self.offsets([text])
        check_query_length(len(tokens), self.identity)
        rows = await self._embed([text], self._served.query_prompt, deadline)
        return rows[0]  # type: ignore[no-any-return]

    async def check_ready(self) -> None:
        """Asks for GET /models. A server without that path is ready too."""
        try:
            await self._requests.once(self._listed, _PROBE_SECONDS)
        except TuneproofError as error:
            raise Unavailable(error.message) from None

    async def close(self) -> None:
        self._tokens.close()
        await self._client.close()

    async def _embed(self, texts: Sequence[str], prompt: str, deadline: float | None) -> Vectors:
        name = self.identity.id
        return await embed_in_batches(
            [prompt + text for text in texts],
            BatchLimits(self._batch_size, _TOKENS_PER_REQUEST, self.identity.max_tokens),
            self.identity,
            lambda batch: self._requests.send(lambda: self._ask(batch, name), deadline=deadline),
        )

    async def _ask(self, texts: list[str], name: str) -> Vectors:
        # Without `encoding_format` the client asks for base64, which is a third of the bytes of
        # decimal numbers, and reads both.
        reply = await self._client.embeddings.create(
            model=name, input=texts, extra_headers=headers()
        )
        rows = {row.index: row.embedding for row in reply.data or ()}
        if sorted(rows) != list(range(len(texts))):
            raise Unavailable(
                f"{self._endpoint.shown} gave vectors of {len(rows)} texts, not of {len(texts)}"
            )
        return np.asarray([rows[number] for number in range(len(texts))], dtype=np.float32)

    async def _listed(self) -> dict[str, int]:
        """Longest input by name; 0 where the list does not tell."""
        try:
            found = await self._client.models.list()
        except openai.NotFoundError:
            return {}
        return {model.id: int(getattr(model, "max_model_len", None) or 0) for model in found.data}

    def _only(self, listed: dict[str, int]) -> str:
        if len(listed) != 1:
            known = ", ".join(sorted(listed)) or "nothing"
            raise InvalidInput(
                f"{self._endpoint.shown} lists {known}; name one by --embedder-model",
                field="embedder_model",
            )
        return next(iter(listed))

    def _translated(self, error: Exception) -> Exception:
        match error:
            case openai.APIStatusError():
                return self._endpoint.failure(
                    error.status_code, error.message, error.response.headers
                )
            case openai.APIConnectionError():
                return self._endpoint.silence(error.__cause__ or error)
            case openai.OpenAIError() | ValueError() | TypeError() | AttributeError():
                return Unavailable(
                    f"{self._endpoint.shown} answers with something else than embeddings: {error}"
                )
            case _:
                return error


async def open_openai_embedder(
    endpoint: Endpoint,
    served: ServedModel,
    tokenizer: str,
    *,
    batch_size: int,
    patience: float = 120.0,
    sleep: Sleep = asyncio.sleep,
) -> OpenAIEmbedder:
    """The embedder that a server serves.

    Args:
        tokenizer: the model's own: a folder with tokenizer.json, or a model id.
        batch_size: most texts in a request.
        patience: seconds to wait for a server that is not up yet.

    Raises:
        InvalidInput: when the tokenizer or the model cannot be used.
        Unavailable: when the server does not answer in time.
    """
    tokens = await asyncio.to_thread(LocalTokens.load, tokenizer)
    embedder = OpenAIEmbedder(endpoint, served, tokens, batch_size=batch_size, sleep=sleep)
    try:
        await embedder.learn(deadline=asyncio.get_running_loop().time() + patience)
    except BaseException:
        await embedder.close()
        raise
    return embedder
