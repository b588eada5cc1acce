"""Options of every command that calls one service, and the client that they name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer

from tuneproof.cli.cluster.choosing import endpoints_of
from tuneproof.cli.console import give
from tuneproof.cli.options import STATE, JsonOption, StateOption, TokenOption
from tuneproof.sdk import Endpoints, GeneratorClient, JudgeClient, RetrieverClient, TrainerClient
from tuneproof.sdk.client import Client

T = TypeVar("T")
ClientT = TypeVar("ClientT", bound=Client)


@dataclass(frozen=True)
class Asked:
    """Of commands that call a generator; each field is an option of the command."""

    generator: Annotated[
        str,
        typer.Option(
            help="host:port of the generator, or dns:///host:port for all its replicas; of a"
            " cluster the name of a pool."
        ),
    ] = ""
    token: TokenOption = ""
    state: StateOption = STATE
    as_json: JsonOption = False

    @property
    def endpoints(self) -> Endpoints:
        """The addresses from options, environment and state folder."""
        targets = {"generator": self.generator, "token": self.token}
        return endpoints_of(self.state, targets, ["generator"])

    def run(self, work: Callable[[GeneratorClient], Awaitable[T]]) -> T:
        """Does some work with a client of that generator."""
        return _run(GeneratorClient, self.endpoints, work)

    def give(self, value: Any, shown: str | Callable[[], None]) -> None:
        """Prints the result as `console.give` does."""
        give(value, shown, as_json=self.as_json)


@dataclass(frozen=True)
class AskedRetriever:
    """As `Asked`, of commands that call a retriever."""

    retriever: Annotated[str, typer.Option(help="host:port of the retriever.")] = ""
    token: TokenOption = ""
    state: StateOption = STATE
    as_json: JsonOption = False

    def run(self, work: Callable[[RetrieverClient], Awaitable[T]]) -> T:
        """Does some work with a client of that retriever."""
        targets = {"retriever": self.retriever, "token": self.token}
        return _run(RetrieverClient, endpoints_of(self.state, targets, ["retriever"]), work)

    def give(self, value: Any, shown: str | Callable[[], None]) -> None:
        """Prints the result as `console.give` does."""
        give(value, shown, as_json=self.as_json)


@dataclass(frozen=True)
class AskedTrainer:
    """As `Asked`, of commands that call a trainer."""

    trainer: Annotated[str, typer.Option(help="host:port of the trainer.")] = ""
    token: TokenOption = ""
    state: StateOption = STATE
    as_json: JsonOption = False

    def run(self, work: Callable[[TrainerClient], Awaitable[T]]) -> T:
        """Does some work with a client of that trainer."""
        targets = {"trainer": self.trainer, "token": self.token}
        return _run(TrainerClient, endpoints_of(self.state, targets, ["trainer"]), work)

    def give(self, value: Any, shown: str | Callable[[], None]) -> None:
        """Prints the result as `console.give` does."""
        give(value, shown, as_json=self.as_json)


@dataclass(frozen=True)
class AskedJudge:
    """As `Asked`, of commands that call a judge."""

    judge: Annotated[str, typer.Option(help="host:port of the judge.")] = ""
    token: TokenOption = ""
    state: StateOption = STATE
    as_json: JsonOption = False

    def run(self, work: Callable[[JudgeClient], Awaitable[T]]) -> T:
        """Does some work with a client of that judge."""
        targets = {"judge": self.judge, "token": self.token}
        return _run(JudgeClient, endpoints_of(self.state, targets, ["judge"]), work)

    def give(self, value: Any, shown: str | Callable[[], None]) -> None:
        """Prints the result as `console.give` does."""
        give(value, shown, as_json=self.as_json)


def _run(client: type[ClientT], endpoints: Endpoints, work: Callable[[ClientT], Awaitable[T]]) -> T:
    async def run() -> T:
        async with client.of(endpoints) as one:
            return await work(one)

    return asyncio.run(run())
