"""Options of every command that calls a retriever, and the client that they name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import typer

from tuneproof.cli.console import give
from tuneproof.cli.options import STATE, JsonOption, StateOption, TokenOption
from tuneproof.sdk import Endpoints, RetrieverClient

T = TypeVar("T")

NameArgument = Annotated[
    str, typer.Argument(help="1 to 63 characters of a-z, 0-9 and -, beginning with a letter.")
]
Mode = Literal["hybrid", "dense", "keyword"]
ALPHA_HELP = "Weight of the dense ranking in a hybrid search."


@dataclass(frozen=True)
class AskedRetriever:
    """Each field is an option of the command."""

    retriever: Annotated[str, typer.Option(help="host:port of the retriever.")] = ""
    token: TokenOption = ""
    state: StateOption = STATE
    as_json: JsonOption = False

    def run(self, work: Callable[[RetrieverClient], Awaitable[T]]) -> T:
        """Does some work with a client of that retriever."""
        targets = {"retriever": self.retriever, "token": self.token}
        endpoints = Endpoints.discover(self.state, targets)

        async def run() -> T:
            target = endpoints.target("retriever")
            async with RetrieverClient(target, token=endpoints.token) as client:
                return await work(client)

        return asyncio.run(run())

    def give(self, value: Any, shown: str | Callable[[], None]) -> None:
        """Prints the result as `console.give` does."""
        give(value, shown, as_json=self.as_json)
