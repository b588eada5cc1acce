"""The options of every command that asks a generator, and the client that they name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

import typer

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
        """The addresses that options, environment and state folder name."""
        return Endpoints.discover(self.state, {"generator": self.generator, "token": self.token})

    def run(self, work: Callable[[GeneratorClient], Awaitable[T]]) -> T:
        """Does some work with a client of the generator that the options name."""
        endpoints = self.endpoints

        async def run() -> T:
            target = endpoints.target("generator")
            async with GeneratorClient(target, token=endpoints.token) as client:
                return await work(client)

        return asyncio.run(run())
