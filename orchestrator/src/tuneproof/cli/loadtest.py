"""`tuneproof loadtest`: load with adapters swapped meanwhile, or load alone on any endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneproof.cli.asking import Asked
from tuneproof.cli.console import ExitCode, out, print_json, say
from tuneproof.cli.options import takes_options
from tuneproof.sdk import GeneratorClient
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.files import write_atomically

if TYPE_CHECKING:
    from tuneproof.loadtest import Check, Door, LoadResult, LoadSpec, Probes, Slo

app = typer.Typer(
    help="Load a generator and swap its adapters meanwhile, or load any OpenAI endpoint.",
    no_args_is_help=True,
)


DurationOption = Annotated[float, typer.Option(min=0.1, help="Seconds of a phase of arrivals.")]
RoundsOption = Annotated[int, typer.Option(min=1, help="Every phase comes once in each round.")]


@dataclass(frozen=True)
class LoadOptions(Asked):
    """The load, what is sent, and what is made of it: options of both commands."""

    rate: Annotated[float, typer.Option(min=0.01, help="Requests a second, on average.")] = 20.0
    duration: DurationOption = 30.0
    rounds: RoundsOption = 3
    full_in_flight: Annotated[
        int,
        typer.Option(
            min=0, help="Also phases with so many requests under way all the time; 0: none."
        ),
    ] = 0
    full_duration: Annotated[
        float, typer.Option(min=0.1, help="Seconds of a phase of full load.")
    ] = 10.0
    skew: Annotated[
        float,
        typer.Option(min=0, help="Zipf's exponent: how much more the first adapters are asked."),
    ] = 1.0
    prompt_words: Annotated[str, typer.Option(help="Words of a made-up prompt: 40, or 20-200.")] = (
        "40"
    )
    answer_tokens: Annotated[str, typer.Option(help="Longest answers in tokens: 16, or 8-64.")] = (
        "16"
    )
    prompts: Annotated[
        Path | None, typer.Option(help="File of prompts, one a line, in place of made-up ones.")
    ] = None
    probe: Annotated[
        Path | None,
        typer.Option(
            help='What adapters say: lines of {"adapter": REF, NAME or "base", "prompt": …,'
            ' "expect": REGEX}; without prompt it holds for every answer.'
        ),
    ] = None
    probe_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests with one of the probes' prompts.")
    ] = 0.2
    slo: Annotated[
        Path | None,
        typer.Option(help="YAML file of objectives; without it nothing may fail or be wrong."),
    ] = None
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a request may take.")] = 60.0
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals, models and prompts.")] = 0
    report: Annotated[Path, typer.Option(help="Where the HTML page is written.")] = Path(
        "loadtest.html"
    )

    def spec(self, base_share: float) -> LoadSpec:
        """The load, of which a share goes to the base model."""
        from tuneproof.loadtest import LoadSpec, Span  # noqa: PLC0415 - numpy takes its time

        return LoadSpec(
            rate=self.rate,
            seconds=self.duration,
            rounds=self.rounds,
            in_flight=self.full_in_flight,
            full_seconds=self.full_duration,
            skew=self.skew,
            base_share=base_share,
            probe_share=self.probe_share,
            prompt_words=Span.parse(self.prompt_words, "--prompt-words"),
            answer_tokens=Span.parse(self.answer_tokens, "--answer-tokens"),
            timeout=self.timeout,
            seed=self.seed,
        )

    def read(self) -> tuple[Sequence[str], Probes | None, Slo]:
        """Prompts, probes and objectives, from their files."""
        from tuneproof.loadtest import Slo, read_probes, read_prompts, read_slo  # noqa: PLC0415

        return (
            read_prompts(self.prompts) if self.prompts else (),
            read_probes(self.probe) if self.probe else None,
            read_slo(self.slo) if self.slo else Slo(),
        )


@dataclass(frozen=True)
class _RunOptions(LoadOptions):
    duration: DurationOption = 60.0
    rounds: RoundsOption = 1


@app.command("swap")
@takes_options
def swap(
    load: LoadOptions,
    *,
    pool: Annotated[
        Path,
        typer.Option(
            help="File of adapter references `name@sha256:…`, one a line. They are declared and"
            " removed by the test, so none may be declared already."
        ),
    ],
    adapters: Annotated[
        int, typer.Option(min=1, help="So many of them serve at a time; the others wait.")
    ] = 8,
    resident: Annotated[
        list[str] | None,
        typer.Option(help="A declared adapter that is asked too and left alone; repeatable."),
    ] = None,
    swaps_per_minute: Annotated[float, typer.Option(min=0.01, help="Swaps under load.")] = 30.0,
    base_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests to the base model.")
    ] = 0.1,
    alias_prefix: Annotated[
        str, typer.Option(help="The aliases are called PREFIX-0, PREFIX-1 …")
    ] = "loadtest",
    alias_lag: Annotated[
        float,
        typer.Option(
            min=0,
            help="Seconds after which every replica follows a moved alias: its reconcile_seconds"
            " and a little more; 0 for one replica.",
        ),
    ] = 0.0,
    keep: Annotated[bool, typer.Option(help="Leave the adapters declared at the end.")] = False,
    url: Annotated[
        str, typer.Option(help="Send requests to this OpenAI URL of the generator, not to gRPC.")
    ] = "",
) -> None:
    """Load a generator, with and without swaps in turn, and say whether the objectives are met.

    A swap: new content is declared, READY is waited for, an alias moves to it, the old is removed.

    Examples:

      tuneproof loadtest swap --pool refs.txt --adapters 8 --rate 20 --slo slo.yaml

      tuneproof loadtest swap --pool refs.txt --probe probes.jsonl --url http://HOST:8000/v1
    """
    from tuneproof.loadtest import SwapSpec, run_swaps  # noqa: PLC0415 - numpy takes its time

    spec = load.spec(base_share)
    refs = _references(pool)
    swaps = SwapSpec(
        adapters=refs[:adapters],
        supply=refs[adapters:],
        rate=swaps_per_minute / 60.0,
        residents=tuple(resident or ()),
        alias_prefix=alias_prefix,
        lag=alias_lag,
        keep=keep,
    )
    given, probes, objectives = load.read()
    endpoints = load.endpoints
    target = endpoints.target("generator")

    async def work(client: GeneratorClient) -> LoadResult:
        base = (await client.pool()).base_model if url else ""
        async with aclosing(_door(target, url, base, endpoints.token)) as door:
            return await run_swaps(
                door, client, spec, swaps, prompts=given, probes=probes, progress=say
            )

    _deliver(load.run(work), objectives, load, url or target)


@app.command("run")
@takes_options
def run(
    load: _RunOptions,
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model, adapter or alias, the most popular first; repeatable."),
    ] = None,
    url: Annotated[
        str, typer.Option(help="Base URL of an OpenAI endpoint, as http://HOST:8000/v1.")
    ] = "",
) -> None:
    """Load an endpoint without swapping anything, so that servers can be compared.

    Examples:

      tuneproof loadtest run --url http://HOST:8000/v1 --model some-model --rate 10

      tuneproof loadtest run --generator HOST:7002 --model short@sha256:… --slo slo.yaml
    """
    from tuneproof.loadtest import run_load  # noqa: PLC0415 - numpy takes its time

    models = tuple(model or ())
    if url and not models:
        raise InvalidInput("an OpenAI endpoint is asked for a model by name: give --model")
    spec = load.spec(0.0 if models else 1.0)
    given, probes, objectives = load.read()
    endpoints = load.endpoints
    target = "" if url else endpoints.target("generator")

    async def ask(client: GeneratorClient | None = None) -> LoadResult:
        points: dict[str, str] = {}
        if client is not None:
            points = {alias.name: alias.ref for alias in await client.aliases()}
            points[(await client.pool()).base_model] = ""
        async with aclosing(_door(target, url, "", endpoints.token)) as door:
            return await run_load(
                door, spec, models, prompts=given, probes=probes, points=points, progress=say
            )

    result = asyncio.run(ask()) if url else load.run(ask)
    _deliver(result, objectives, load, url or target)


def _references(path: Path) -> tuple[str, ...]:
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read the pool of {path}: {error}") from None
    for number, line in enumerate(lines, 1):
        if line and "@sha256:" not in line:
            raise InvalidInput(f"{path}:{number}: {line!r} is no reference name@sha256:…")
    return tuple(filter(None, lines))


def _door(target: str, url: str, base_model: str, token: str | None) -> Door:
    from tuneproof.loadtest import GrpcDoor, OpenAIDoor  # noqa: PLC0415 - numpy takes its time

    if url:
        return OpenAIDoor(url, base_model=base_model, token=token, of_generator=bool(base_model))
    return GrpcDoor(target, token=token)


def _deliver(result: LoadResult, slo: Slo, load: LoadOptions, address: str) -> None:
    """Writes the page, prints what it found, and ends with 1 where an objective is missed."""
    from tuneproof import loadtest  # noqa: PLC0415 - numpy takes its time

    result = loadtest.with_settings(result, Address=address)
    checks = loadtest.checks_of(slo, result.figures)
    write_atomically(load.report, loadtest.build_page(result, checks).encode("utf-8", "replace"))
    if load.as_json:
        print_json({**loadtest.result_json(result, checks), "report": str(load.report)})
    else:
        for note in loadtest.notes(result):
            say(note)
        _show(checks)
        out.print(f"{loadtest.headline(checks)} report: {load.report}", markup=False)
    if not all(check.met for check in checks):
        raise typer.Exit(ExitCode.FAILED)


def _show(checks: Sequence[Check]) -> None:
    for check in checks:
        found = "not measured" if check.found is None else f"{check.found:.4g}"
        limit = f"{'at least' if check.at_least else 'at most'} {check.limit:g}"
        out.print(
            f"{'met   ' if check.met else 'MISSED'}  {check.name}: {found}, {limit}", markup=False
        )
