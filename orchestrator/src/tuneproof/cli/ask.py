"""`tuneproof ask`: one question to the running services."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Literal

import typer

from tuneproof.cli.asking import Asked
from tuneproof.cli.cluster.choosing import endpoints_of
from tuneproof.cli.console import out, say
from tuneproof.cli.options import takes_options
from tuneproof.prompts import rag_messages
from tuneproof.sdk import (
    Endpoints,
    Generation,
    GeneratorClient,
    Passage,
    Restarted,
    RetrieverClient,
    Sampling,
)
from tuneproof.servicekit.errors import InvalidInput, NotFound
from tuneproof.servicekit.tracing import span


@takes_options
def ask(
    asked: Asked,
    question: Annotated[str, typer.Argument(help="The question.")],
    *,
    corpus: Annotated[
        str, typer.Option(help="Name of a frozen corpus; needed when there are several.")
    ] = "",
    adapter: Annotated[
        str,
        typer.Option(help="Adapter `name@sha256:…` or alias; by default the base model answers."),
    ] = "",
    k: Annotated[int, typer.Option(min=1, max=1000, help="Number of passages in the prompt.")] = 4,
    mode: Annotated[
        Literal["hybrid", "dense", "keyword"], typer.Option(help="How to find the passages.")
    ] = "hybrid",
    alpha: Annotated[
        float, typer.Option(min=0, max=1, help="Weight of the dense ranking in a hybrid search.")
    ] = 0.5,
    passage_words: Annotated[
        int, typer.Option(min=0, help="Cut each passage after this many words; 0: never.")
    ] = 0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 256,
    retriever: Annotated[str, typer.Option(help="host:port of the retriever.")] = "",
) -> None:
    """Retrieve passages for a question, and stream the answer with its sources.

    Examples:

      tuneproof ask "What is the Alder 40 transmit power?"

      tuneproof ask "..." --corpus manual --adapter short@sha256:... --json

      tuneproof ask "..." --context my-cluster --generator mistral-7b
    """
    if not question.strip():
        raise InvalidInput("the question is empty: give it in quotes after `tuneproof ask`")
    targets = {"retriever": retriever, "generator": asked.generator, "token": asked.token}
    endpoints = endpoints_of(asked.state, targets, ["retriever", "generator"])

    async def run() -> None:
        with span("ask"):
            passages, name = await _retrieve(
                endpoints, corpus, question, k=k, mode=mode, alpha=alpha
            )
            messages = rag_messages(
                question, [p.text for p in passages], passage_words=passage_words or None
            )
            final = await _answer(endpoints, adapter, messages, max_tokens, show=not asked.as_json)
        sources = [asdict(passage) for passage in passages]
        value = {"answer": asdict(final), "corpus": name, "sources": sources}
        asked.give(value, lambda: _show(passages, final, name))

    asyncio.run(run())


async def _retrieve(
    endpoints: Endpoints, corpus: str, question: str, *, k: int, mode: str, alpha: float
) -> tuple[list[Passage], str]:
    async with RetrieverClient.of(endpoints) as retriever:
        known = [] if corpus else await _frozen(retriever)
        if not corpus and len(known) != 1:
            raise NotFound(f"name a corpus with --corpus; {_listed(known)}")
        name = corpus or known[0]
        try:
            return await retriever.search(name, question, k=k, mode=mode, alpha=alpha), name
        except NotFound as error:
            raise NotFound(f"{error.message}; {_listed(await _frozen(retriever))}") from None


async def _frozen(retriever: RetrieverClient) -> list[str]:
    return [corpus.name for corpus in await retriever.list() if corpus.frozen]


def _listed(names: list[str]) -> str:
    return f"frozen corpora there: {', '.join(names) or 'none; `tuneproof study run` makes one'}"


async def _answer(
    endpoints: Endpoints,
    adapter: str,
    messages: list[dict[str, str]],
    max_tokens: int,
    *,
    show: bool,
) -> Generation:
    async with GeneratorClient.of(endpoints) as generator:
        if "@" in adapter:
            await generator.declare(adapter)
            await generator.wait_ready(adapter, on_change=lambda now: say(f"adapter {now.state}"))
        sampling = Sampling(max_tokens=max_tokens)
        pieces = generator.generate(adapter, messages, sampling, restart_on_loss=True)
        async with aclosing(pieces) as stream:
            async for piece in stream:
                if isinstance(piece, Generation):
                    return piece
                if isinstance(piece, Restarted):
                    say(f"\n{piece.reason}; the answer begins again")
                elif show:
                    out.print(piece, end="", markup=False)
    raise NotFound("the generator gave no answer")


def _show(passages: list[Passage], final: Generation, corpus: str) -> None:
    out.print("\n")
    for number, passage in enumerate(passages, 1):
        out.print(f"[{number}] {passage.document_id}: {passage.text}", markup=False)
    out.print(
        f"\n{final.served_by}: {final.completion_tokens} tokens in {final.seconds:.2f} s,"
        f" corpus {corpus}",
        markup=False,
    )
