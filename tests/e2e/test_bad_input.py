"""Questions that cannot be answered, put to the real services."""

from __future__ import annotations

import asyncio

import pytest

from tuneproof.data.telecom import generate
from tuneproof.sdk import RetrieverClient

from ..conftest import Running, tuneproof

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

UNKNOWN = "a@sha256:" + "0" * 64
LONG = "signal " * 4500


@pytest.fixture(scope="session")
def corpus(running: Running) -> str:
    """A small frozen corpus."""

    async def make() -> str:
        async with RetrieverClient(running.addresses["retriever"]["grpc"], token=None) as retriever:
            await retriever.ensure_corpus("bad-input")
            documents = generate(seed=1, documents=20, facts_per_document=4).documents
            await retriever.ingest("bad-input", documents)
            return (await retriever.freeze("bad-input")).name

    return asyncio.run(make())


@pytest.mark.parametrize(
    ("question", "flags", "code", "told"),
    [
        ("What?", ["--corpus", "nope"], 1, "no corpus 'nope'; frozen corpora there: bad-input"),
        ("What?", ["--corpus", "No/pe"], 2, "corpus is 'No/pe'; a corpus's name has 1 to 63"),
        (" ", [], 2, "the question is empty: give it in quotes"),
        (LONG, [], 2, "query has 4500 tokens, more than the 254 that the embedder reads; shorten"),
        (LONG, ["--mode", "keyword"], 2, "the model's context"),
        ("What?", ["--adapter", "nobody"], 1, "'nobody' is not the base model 'telecom-reader'"),
        ("What?", ["--adapter", "a@sha256:1"], 2, "adapter digest 'sha256:1' is not `sha256:`"),
        ("What?", ["--adapter", UNKNOWN], 1, f"adapter {UNKNOWN} cannot be served: no adapter"),
        ("What?", ["--max-tokens", "99999"], 2, "max_tokens is 99999, not 1 to the model's"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(
    running: Running, corpus: str, *, question: str, flags: list[str], code: int, told: str
) -> None:
    chosen = flags if "--corpus" in flags else [*flags, "--corpus", corpus]
    ended = tuneproof("ask", question, *chosen, "--state", str(running.state))
    assert ended.returncode == code, ended.stderr
    assert told in ended.stderr
    assert "tuneproof: " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
