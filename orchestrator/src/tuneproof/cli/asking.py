"""What every command that asks a generator has: its options, a client, and plain errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Concatenate, TypeVar, get_type_hints

import typer

from tuneproof.cli.console import plain_errors
from tuneproof.sdk import Endpoints, GeneratorClient

T = TypeVar("T")
AskedT = TypeVar("AskedT", bound="Asked")

GeneratorOption = Annotated[
    str, typer.Option(help="host:port of the generator, or dns:///host:port for all its replicas.")
]
TokenOption = Annotated[str, typer.Option(envvar="TUNEPROOF_TOKEN", help="Bearer token.")]
StateOption = Annotated[Path, typer.Option(help="State folder whose services are asked.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@dataclass(frozen=True)
class Asked:
    """Each field is an option of the command."""

    generator: GeneratorOption = ""
    token: TokenOption = ""
    state: StateOption = Path(".tuneproof")
    as_json: JsonOption = False

    def run(self, work: Callable[[GeneratorClient], Awaitable[T]]) -> T:
        """Does some work with a client of the generator that the options name."""
        endpoints = Endpoints.discover(
            self.state, {"generator": self.generator, "token": self.token}
        )

        async def run() -> T:
            target = endpoints.target("generator")
            async with GeneratorClient(target, token=endpoints.token) as client:
                return await work(client)

        return asyncio.run(run())


def asks_generator(command: Callable[Concatenate[AskedT, ...], None]) -> Callable[..., None]:
    """The command as typer reads it: its own options, then the fields of its first parameter.

    Its errors are plain.
    """
    first, *own = signature(command, eval_str=True).parameters.values()
    kind: type[AskedT] = first.annotation
    hints = get_type_hints(kind, include_extras=True)
    options = [
        Parameter(one.name, Parameter.KEYWORD_ONLY, default=one.default, annotation=hints[one.name])
        for one in fields(kind)
    ]

    @wraps(command)
    def run(**given: Any) -> None:
        with plain_errors():
            command(kind(**{one.name: given.pop(one.name) for one in options}), **given)

    # typer 0.29 reads both.
    run.__signature__ = Signature([*own, *options])  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in (*own, *options)}
    return run
