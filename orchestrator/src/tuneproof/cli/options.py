"""Options that several commands share, each written once.

Under `takes_options` the first parameter of a command is a dataclass. Its fields become options
of the command, after the command's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Concatenate, Literal, TypeVar, get_type_hints

import typer

from tuneproof.cli.console import plain_errors
from tuneproof.local import RetrieverOptions

OptionsT = TypeVar("OptionsT")

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
TokenOption = Annotated[str, typer.Option(envvar="TUNEPROOF_TOKEN", help="Bearer token.")]
StateOption = Annotated[
    Path, typer.Option(help="Folder that keeps everything: state, corpora, adapters, logs.")
]
STATE = Path(".tuneproof")


@dataclass(frozen=True)
class ServiceOptions:
    """How to start the services of this machine."""

    model: Annotated[
        str, typer.Option(help="The base model: a folder or a Hugging Face id; overrides the file.")
    ] = ""
    judge_url: Annotated[
        str,
        typer.Option(
            help="Base URL of an OpenAI-compatible endpoint for the judge; by default the base"
            " model judges. Its key: TUNEPROOF_JUDGE_API_KEY."
        ),
    ] = ""
    judge_model: Annotated[str, typer.Option(help="The judge's model at that endpoint.")] = ""
    rubrics: Annotated[Path | None, typer.Option(help="Folder with extra rubric files.")] = None
    store: Annotated[
        Literal["lancedb", "weaviate"],
        typer.Option(help="Where corpora live: a folder of the state, or a Weaviate server."),
    ] = "lancedb"
    weaviate_url: Annotated[
        str,
        typer.Option(
            help="HTTP address of a Weaviate server that runs already. Its key:"
            " TUNEPROOF_RETRIEVER_WEAVIATE_API_KEY."
        ),
    ] = ""
    weaviate_grpc: Annotated[
        str, typer.Option(help="Its gRPC address, host:port; without it port 50051 of its host.")
    ] = ""
    embedder: Annotated[
        str,
        typer.Option(
            help="What turns text into vectors: a folder in sentence-transformers format, a model"
            " id, or tei or openai for a server that runs already (./tei is a folder). Its key:"
            " TUNEPROOF_RETRIEVER_EMBEDDER_API_KEY."
        ),
    ] = ""
    embedder_url: Annotated[
        str,
        typer.Option(help="Address of that server: of TEI, or the base URL of OpenAI's protocol."),
    ] = ""
    embedder_tokenizer: Annotated[
        str,
        typer.Option(help="With openai: the model's tokenizer, a folder or a model id."),
    ] = ""
    reranker: Annotated[
        str,
        typer.Option(
            help="What reads the best passages again where a study or a search asks for it: a"
            " folder or model id of a cross-encoder, or tei for a server that runs already (./tei"
            " is a folder). Its key: TUNEPROOF_RETRIEVER_RERANKER_API_KEY."
        ),
    ] = ""
    reranker_url: Annotated[str, typer.Option(help="Address of that server.")] = ""
    state: StateOption = STATE

    @property
    def of_retriever(self) -> RetrieverOptions:
        """Those that only the retriever gets."""
        return RetrieverOptions(
            **{one.name: getattr(self, one.name) for one in fields(RetrieverOptions)}
        )


def takes_options(
    command: Callable[Concatenate[OptionsT, ...], None],
    *,
    on_interrupt: str = "interrupted",
) -> Callable[..., None]:
    """The command as typer reads it: its own options, then the fields of its first parameter.

    Its errors are plain; `on_interrupt` is the message after Ctrl-C.
    """
    first, *own = signature(command, eval_str=True).parameters.values()
    kind: type[Any] = first.annotation
    hints = get_type_hints(kind, include_extras=True)
    options = [
        Parameter(one.name, Parameter.KEYWORD_ONLY, default=one.default, annotation=hints[one.name])
        for one in fields(kind)
    ]

    @wraps(command)
    def run(**given: Any) -> None:
        with plain_errors(on_interrupt=on_interrupt):
            command(kind(**{one.name: given.pop(one.name) for one in options}), **given)

    # typer 0.29 reads both.
    run.__signature__ = Signature([*own, *options])  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in (*own, *options)}
    return run
