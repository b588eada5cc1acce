"""Opens the models that the settings name. Their libraries are extras, and slow to import."""

from __future__ import annotations

import asyncio

from tuneproof.servicekit.errors import InvalidInput
from tuneproof_retriever.embedders.protocol import Embedder
from tuneproof_retriever.endpoint import Endpoint
from tuneproof_retriever.reranking.protocol import Reranker
from tuneproof_retriever.settings import RetrieverSettings


async def open_embedder(settings: RetrieverSettings) -> Embedder:
    """The embedder; takes seconds, and waits for a server that is not up yet.

    Raises:
        InvalidInput: when the settings name what cannot be used.
        Unavailable: when the model must be downloaded and cannot, or its server does not answer.
    """
    try:
        match settings.embedder:
            case "tei":
                return await _tei_embedder(settings)
            case "openai":
                return await _openai_embedder(settings)
            case _:
                return await _sentence_embedder(settings)
    except ModuleNotFoundError as error:
        raise _missing("embedder", settings.embedder, error) from None


async def open_reranker(settings: RetrieverSettings) -> Reranker | None:
    """The reranker, None where there is to be none; see `open_embedder`."""
    match settings.reranker:
        case "":
            return None
        case "tei":
            return await _tei_reranker(settings)
        case _:
            return await _cross_encoder(settings)


async def _sentence_embedder(settings: RetrieverSettings) -> Embedder:
    from tuneproof_retriever.embedders import sentence_embedder  # noqa: PLC0415

    return await asyncio.to_thread(
        sentence_embedder.load_sentence_embedder,
        settings.embedder,
        device=settings.device,
        threads=settings.torch_threads,
        batch_size=settings.embed_batch,
        revision=settings.embedder_revision,
    )


async def _tei_embedder(settings: RetrieverSettings) -> Embedder:
    from tuneproof_retriever.embedders import tei_embedder  # noqa: PLC0415

    return await tei_embedder.open_tei_embedder(
        _embedder_endpoint("TEI", settings),
        prompts=tei_embedder.Prompts(
            settings.embedder_query_prompt, settings.embedder_passage_prompt
        ),
        model=settings.embedder_model,
        revision=settings.embedder_revision,
    )


async def _openai_embedder(settings: RetrieverSettings) -> Embedder:
    from tuneproof_retriever.embedders import openai_embedder  # noqa: PLC0415

    return await openai_embedder.open_openai_embedder(
        _embedder_endpoint("the embeddings endpoint", settings),
        openai_embedder.ServedModel(
            name=settings.embedder_model,
            revision=settings.embedder_revision,
            max_tokens=settings.embedder_max_tokens,
            query_prompt=settings.embedder_query_prompt,
            passage_prompt=settings.embedder_passage_prompt,
        ),
        settings.embedder_tokenizer,
        batch_size=settings.embed_batch,
    )


def _embedder_endpoint(kind: str, settings: RetrieverSettings) -> Endpoint:
    return Endpoint(
        kind,
        settings.embedder_url,
        settings.embedder_api_key.get_secret_value(),
        "TUNEPROOF_RETRIEVER_EMBEDDER_API_KEY",
        concurrency=settings.model_concurrency,
        request_timeout=settings.model_timeout,
    )


async def _tei_reranker(settings: RetrieverSettings) -> Reranker:
    try:
        from tuneproof_retriever.reranking import tei_reranker  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing("reranker", settings.reranker, error) from None
    endpoint = Endpoint(
        "TEI",
        settings.reranker_url,
        settings.reranker_api_key.get_secret_value(),
        "TUNEPROOF_RETRIEVER_RERANKER_API_KEY",
        concurrency=settings.model_concurrency,
        request_timeout=settings.model_timeout,
    )
    return await tei_reranker.open_tei_reranker(endpoint)


async def _cross_encoder(settings: RetrieverSettings) -> Reranker:
    from tuneproof_retriever.reranking import cross_encoder  # noqa: PLC0415

    return await asyncio.to_thread(
        cross_encoder.load_cross_encoder,
        settings.reranker,
        device=settings.device,
        batch_size=settings.embed_batch,
        revision=settings.reranker_revision,
    )


def _missing(setting: str, value: str, error: ModuleNotFoundError) -> InvalidInput:
    return InvalidInput(
        f"{setting} {value!r} needs the package {error.name}:"
        f" pip install tuneproof-retriever[{value}]",
        field=setting,
    )
