"""`tuneproof up` and `tuneproof down`: the four services as processes of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tuneproof.cli.console import give, out, plain_errors, say
from tuneproof.cli.options import STATE, ServiceOptions, StateOption, takes_options
from tuneproof.local import LocalOptions, Supervisor
from tuneproof.local.supervisor import Progress
from tuneproof.servicekit.errors import InvalidInput, Unavailable
from tuneproof.study.design.sources import BaseSource, Sources, model_folder, resolve_sources
from tuneproof.study.design.specfile import load_spec
from tuneproof.study.local import local_options

_WATCH_SECONDS = 1.0

StudyFile = Annotated[
    Path | None,
    typer.Argument(help="A study file: its section `services` names model and rubrics."),
]
UpJson = Annotated[bool, typer.Option("--json", help="Print the addresses as JSON.")]


@partial(
    takes_options, on_interrupt="interrupted; the services that this command started are stopped"
)
def up(
    given: ServiceOptions,
    study: StudyFile = None,
    *,
    detach: Annotated[
        bool, typer.Option(help="Return when the services are ready; `tuneproof down` stops them.")
    ] = False,
    as_json: UpJson = False,
) -> None:
    """Start retriever, generator, trainer and judge on this machine, on loopback only.

    Keeps them running, and restarts any that ends, until Ctrl-C stops all of them.

    Examples:

      tuneproof up studies/demo.yaml

      tuneproof up --model Qwen/Qwen3-0.6B --detach

      tuneproof up studies/demo.yaml --store weaviate --weaviate-url http://127.0.0.1:8080

      tuneproof up studies/demo.yaml --embedder tei --embedder-url http://127.0.0.1:8081
    """
    asyncio.run(_up(Supervisor(given.state), _local(study, given), detach=detach, as_json=as_json))


def down(*, state: StateOption = STATE) -> None:
    """Stop the services that `up` or an interrupted study left running.

    Example:

      tuneproof down --state .tuneproof
    """
    with plain_errors():
        asyncio.run(Supervisor(state).take_down(progress=_tell()))


async def _up(
    supervisor: Supervisor, options: LocalOptions, *, detach: bool, as_json: bool
) -> None:
    with contextlib.nullcontext() if detach else supervisor.keeping():
        before = supervisor.running()
        try:
            await supervisor.ensure_up(options, progress=_tell())
        except BaseException:
            started = [name for name in supervisor.running() if name not in before]
            await supervisor.take_down(progress=_tell(), names=started)
            raise
        addresses = supervisor.addresses()
        give(addresses, lambda: _show(addresses), as_json=as_json)
        if not detach:
            await _keep_up(supervisor, options)


async def _keep_up(supervisor: Supervisor, options: LocalOptions) -> None:
    """Restarts what ends, until Ctrl-C or SIGTERM; then stops all."""
    say("Ctrl-C stops the services.")
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _WATCH_SECONDS)
            if len(supervisor.running()) < len(supervisor.addresses()) and not stop.is_set():
                try:
                    await supervisor.ensure_up(options, progress=_tell())
                except Unavailable as error:
                    say(error.message)
    finally:
        await supervisor.take_down(progress=_tell())


def _local(study: Path | None, given: ServiceOptions) -> LocalOptions:
    if bool(given.judge_url) != bool(given.judge_model):
        raise InvalidInput("--judge-url and --judge-model belong together: give both or none")
    if study is not None:
        sources = resolve_sources(
            load_spec(study),
            study,
            model=given.model,
            rubrics=given.rubrics,
            judge_url=given.judge_url,
            judge_model=given.judge_model,
        )
    else:
        sources = Sources(
            (BaseSource("", given.model),),
            given.rubrics,
            given.judge_url,
            given.judge_model,
            toy=False,
        )
    if not sources.model:
        raise InvalidInput("name a base model: in a study file under `services`, or with --model")
    for base in sources.bases:
        model_folder(base.model)
    return local_options(
        sources, given.state, given.judge_url, given.judge_model, given.of_retriever
    )


def _tell() -> Progress:
    start = time.monotonic()
    return lambda name, what: say(f"{time.monotonic() - start:5.1f} s  {name}: {what}")


def _show(addresses: dict[str, dict[str, str]]) -> None:
    table = Table("service", "gRPC", "health", "metrics", "process", box=None)
    for name, entry in addresses.items():
        table.add_row(name, entry["grpc"], entry["health"], entry["metrics"], str(entry["pid"]))
    out.print(table)
    if door := addresses.get("generator", {}).get("openai"):
        out.print(f"OpenAI API: {door}")
    if door := addresses.get("judge", {}).get("http"):
        out.print(f"judge by HTTP: {door}")
