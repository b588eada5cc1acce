"""Options of every command that calls a generator, and the client that they name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer

from tuneproof.cli.console import give
from tuneproof.cli.options import STATE, JsonOption, StateOption, TokenOption
from tuneproof.sdk import Endpoints, GeneratorClient

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """Each field is an option of the command."""

    generator: Annotated[
        str,
        typer.Option(help="host:port of the generator, or dns:///host:port for all its replicas."),
    ] = ""
    token: TokenOption = ""
    state: StateOption = STATE
    as_json: JsonOption = False

    @property
    def endpoints(self) -> Endpoints:
        """The addresses from options, environment and state folder."""
        return Endpoints.discover(self.state, {"generator": self.generator, "token": self.token})

    def run(self, work: Callable[[GeneratorClient], Awaitable[T]]) -> T:
        """Does some work with a client of that generator."""
        endpoints = self.endpoints

        async def run() -> T:
            target = endpoints.target("generator")
            async with GeneratorClient(target, token=endpoints.token) as client:
                return await work(client)

        return asyncio.run(run())

    def give(self, value: Any, shown: str | Callable[[], None]) -> None:
        """Prints the result as `console.give` does."""
        give(value, shown, as_json=self.as_json)
