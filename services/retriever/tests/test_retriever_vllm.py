"""The embedder on a real vLLM that serves the packaged model, against the same model in process."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tuneproof.servicekit.errors import InvalidInput
from tuneproof_retriever.embedders.model_folder import PACKAGED_MODEL, find_model
from tuneproof_retriever.embedders.openai_embedder import (
    OpenAIEmbedder,
    ServedModel,
    open_openai_embedder,
)
from tuneproof_retriever.embedders.sentence_embedder import SentenceEmbedder
from tuneproof_retriever.endpoint import Endpoint

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_PLUGINS": "",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture
async def remote(tmp_path: Path) -> AsyncIterator[OpenAIEmbedder]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (tmp_path / "vllm.log").open("wb") as log:
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(find_model(PACKAGED_MODEL)), "--served-model-name", "minilm"),
            *("--runner", "pooling", "--host", "127.0.0.1", "--port", str(port)),
            *("--dtype", "float32", "--enforce-eager"),
            env={**os.environ, **_ENVIRONMENT},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        embedder = await open_openai_embedder(
            Endpoint("vLLM", f"http://127.0.0.1:{port}/v1"),
            ServedModel(),
            PACKAGED_MODEL,
            batch_size=32,
            patience=200,
        )
        yield embedder
        await embedder.close()
    finally:
        server.terminate()
        await server.wait()


async def test_vectors_and_limits_are_those_of_the_model_in_process(
    remote: OpenAIEmbedder, embedder: SentenceEmbedder
) -> None:
    assert remote.identity.id == "minilm"
    assert remote.identity.dimension == 384
    assert remote.identity.max_tokens == embedder.identity.max_tokens
    texts = [f"number {number} " + "word " * (number * 7 % 90) for number in range(200)]
    theirs, ours = await remote.embed_passages(texts), await embedder.embed_passages(texts)
    assert (theirs * ours).sum(axis=1) == pytest.approx(1, abs=1e-4)
    query = await remote.embed_query("a query of some words")
    assert query == pytest.approx(await embedder.embed_query("a query of some words"), abs=1e-3)
    await remote.check_ready()
    with pytest.raises(InvalidInput, match=r"vLLM at .* refuses the texts"):
        await remote.embed_passages(["word " * 600])
