"""Options that commands about corpora share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

NameArgument = Annotated[
    str, typer.Argument(help="1 to 63 characters of a-z, 0-9 and -, beginning with a letter.")
]
Mode = Literal["hybrid", "dense", "keyword"]
ModeOption = Annotated[Mode, typer.Option(help="How to find the passages.")]
AlphaOption = Annotated[
    float, typer.Option(min=0, max=1, help="Weight of the dense ranking in a hybrid search.")
]
RerankOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=1000,
        help="Passages that the retriever's reranker reads again, at least k; 0: its default.",
    ),
]
