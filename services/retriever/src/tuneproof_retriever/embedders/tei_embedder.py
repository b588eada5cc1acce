"""An embedder on a server of Text Embeddings Inference."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import structlog

from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.retries import Sleep
from tuneproof_retriever.corpus import EmbedderIdentity, Vector, Vectors
from tuneproof_retriever.embedders.protocol import Offsets, check_query_length
from tuneproof_retriever.embedders.text_batches import BatchLimits, embed_in_batches
from tuneproof_retriever.endpoint import Endpoint, all_of
from tuneproof_retriever.tei import TeiServer, Token, bytes_to_characters, open_tei

# TEI 1.9 tokenizes at most so many characters for each token that its model reads.
_CHARACTERS_PER_TOKEN = 250
_MOST_CHARACTERS = 200_000
_PROBE = "."

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Prompts:
    """Names of the model's prompts; empty: the server's default, or none."""

    query: str = ""
    passage: str = ""


class TeiEmbedder:
    """See `Embedder`. Use `open_tei_embedder` to get one."""

    def __init__(
        self, server: TeiServer, identity: EmbedderIdentity, prompts: Prompts, default_prompt: int
    ) -> None:
        """
        Args:
            default_prompt: bytes that the server puts before a text without a prompt's name.
        """
        self._server = server
        self._identity = identity
        self._prompts = prompts
        self._default_prompt = default_prompt
        info = server.info
        self._limits = BatchLimits(
            info.texts_per_request, info.max_batch_tokens, info.max_input_length
        )
        self._part = min(_MOST_CHARACTERS, info.max_input_length * _CHARACTERS_PER_TOKEN - 1)

    @property
    def identity(self) -> EmbedderIdentity:
        return self._identity

    async def offsets(
        self, texts: Sequence[str], *, deadline: float | None = None
    ) -> list[Offsets]:
        """A text that is too long for one request is cut at white space."""
        parts = [(number, *part) for number, text in enumerate(texts) for part in self._parts(text)]
        tokens = await all_of(
            [
                self._tokens([part for _, _, part in request], deadline)
                for request in self._requests_of(parts)
            ]
        )
        found: list[list[tuple[int, int]]] = [[] for _ in texts]
        in_order = (offsets for request in tokens for offsets in request)
        for (number, first, _), offsets in zip(parts, in_order, strict=True):
            found[number].extend((first + start, first + end) for start, end in offsets)
        return list(found)

    async def embed_passages(
        self, texts: Sequence[str], *, deadline: float | None = None
    ) -> Vectors:
        return await embed_in_batches(
            texts,
            self._limits,
            self._identity,
            lambda batch: self._server.embed(batch, self._prompts.passage, deadline=deadline),
        )

    async def embed_query(self, text: str, *, deadline: float | None = None) -> Vector:
        """The server counts the tokens, which saves a request."""
        try:
            rows = await embed_in_batches(
                [text],
                self._limits,
                self._identity,
                lambda batch: self._server.embed(batch, self._prompts.query, deadline=deadline),
            )
        except InvalidInput:
            [tokens] = await self.offsets([text], deadline=deadline)
            check_query_length(len(tokens), self._identity)
            raise
        return rows[0]  # type: ignore[no-any-return]

    async def check_ready(self) -> None:
        await self._server.check_ready()

    async def close(self) -> None:
        await self._server.close()

    def _parts(self, text: str) -> Iterator[tuple[int, str]]:
        """Offset and text of each part that fits into a request."""
        start = 0
        while start < len(text):
            end = start + self._part
            if end < len(text):
                spaces = (at for at in range(end, start, -1) if text[at].isspace())
                end = next(spaces, end)
            yield start, text[start:end]
            start = end

    def _requests_of(
        self, parts: Sequence[tuple[int, int, str]]
    ) -> Iterator[list[tuple[int, int, str]]]:
        request: list[tuple[int, int, str]] = []
        size = 0
        for part in parts:
            if request and (
                len(request) == self._limits.texts or size + len(part[2]) > _MOST_CHARACTERS
            ):
                yield request
                request, size = [], 0
            request.append(part)
            size += len(part[2])
        if request:
            yield request

    async def _tokens(self, texts: Sequence[str], deadline: float | None) -> list[Offsets]:
        skipped = self._default_prompt
        found: list[Offsets] = []
        for text, tokens in zip(
            texts, await self._server.tokenize(texts, deadline=deadline), strict=True
        ):
            pairs = [
                (max(0, token.start - skipped), token.stop - skipped)
                for token in tokens
                if token.start is not None and token.stop is not None and token.stop > skipped
            ]
            found.append(bytes_to_characters(text, pairs))
        return found


async def open_tei_embedder(
    endpoint: Endpoint,
    *,
    prompts: Prompts,
    model: str = "",
    revision: str = "",
    patience: float = 120.0,
    sleep: Sleep = asyncio.sleep,
) -> TeiEmbedder:
    """The embedder that a server serves.

    Args:
        model: the id that the server must serve; empty accepts any.
        revision: its revision, for a server that was started without one.
        patience: seconds to wait for a server that is not up yet.

    Raises:
        InvalidInput: when it serves another model or revision, or does not know a prompt.
        Unavailable: when it does not answer in time.
    """
    server = await open_tei(endpoint, "embedding", patience=patience, sleep=sleep)
    try:
        revision = _revision(server, model, revision)
        probes = [await _probe(server, name) for name in ("", prompts.query, prompts.passage)]
        dimension = (await server.embed([_PROBE], prompts.passage)).shape[1]
    except BaseException:
        await server.close()
        raise
    info = server.info
    content = [
        "tei",
        info.model_id,
        revision,
        info.model_dtype,
        info.model_type["embedding"],
        [[token.id for token in tokens] for tokens in probes],
    ]
    identity = EmbedderIdentity(
        id=info.model_id,
        digest=sha256_of_json(content),
        dimension=int(dimension),
        # What is more than the one token of the probe is special, or a prompt's.
        max_tokens=info.max_input_length - max(map(len, probes)) + 1,
    )
    default_prompt = max((token.stop or 0 for token in probes[0]), default=0) - len(_PROBE)
    return TeiEmbedder(server, identity, prompts, max(0, default_prompt))


def _revision(server: TeiServer, model: str, revision: str) -> str:
    """The revision that the server serves."""
    info = server.info
    if model not in ("", info.model_id):
        raise InvalidInput(
            f"{server.shown} serves {info.model_id}, not {model}", field="embedder_model"
        )
    if revision and info.model_sha not in (None, revision):
        raise InvalidInput(
            f"{server.shown} serves revision {info.model_sha}, not {revision}",
            field="embedder_revision",
        )
    if not (info.model_sha or revision):
        _log.warning(
            "the embedder's revision is unknown; start TEI with --revision, or set"
            " --embedder-revision",
            model=info.model_id,
        )
    return info.model_sha or revision


async def _probe(server: TeiServer, prompt: str) -> list[Token]:
    """The tokens of a short text with a prompt."""
    [tokens] = await server.tokenize([_PROBE], prompt, special=True)
    return tokens
