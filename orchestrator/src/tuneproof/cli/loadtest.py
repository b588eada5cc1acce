"""`tuneproof loadtest`: load with swaps of adapters, or load alone on any endpoint.

The functions import `tuneproof.loadtest`: scipy and aiohttp are slow to load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer
import yaml

from tuneproof.cli.asking import Asked
from tuneproof.cli.console import ExitCode, out, print_json, say
from tuneproof.cli.options import takes_options
from tuneproof.sdk import Endpoints, GeneratorClient
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.files import write_atomically

if TYPE_CHECKING:
    from tuneproof.loadtest import Check, Door, LoadResult, LoadSpec, Probes, Slo, Trace

app = typer.Typer(
    help="Load a generator while swapping its adapters, or load any OpenAI endpoint.",
    no_args_is_help=True,
)


DurationOption = Annotated[float, typer.Option(min=0.1, help="Seconds in a phase of arrivals.")]
RoundsOption = Annotated[int, typer.Option(min=1, help="Rounds; each has every phase once.")]


class Inputs(NamedTuple):
    """What the options of both commands name."""

    spec: LoadSpec
    prompts: Sequence[str]
    probes: Probes | None
    slo: Slo
    trace: Trace | None


@dataclass(frozen=True)
class LoadOptions(Asked):
    """The options of both commands: the load, its requests, and the objectives."""

    rate: Annotated[float, typer.Option(min=0.01, help="Average requests a second.")] = 20.0
    duration: DurationOption = 30.0
    rounds: RoundsOption = 3
    full_in_flight: Annotated[
        int, typer.Option(min=0, help="Add phases that keep this many requests in flight; 0: none.")
    ] = 0
    full_duration: Annotated[
        float, typer.Option(min=0.1, help="Seconds in a phase of full load.")
    ] = 10.0
    arrivals: Annotated[
        Literal["poisson", "bursty", "diurnal"],
        typer.Option(help="How arrivals scatter around the rate."),
    ] = "poisson"
    burst: Annotated[
        float, typer.Option(min=1, help="Bursty: the rate in a burst over that between bursts.")
    ] = 5.0
    burst_seconds: Annotated[
        float, typer.Option(min=0.01, help="Bursty: average length of a burst.")
    ] = 2.0
    burst_share: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Bursty: share of the time in bursts.")
    ] = 0.2
    swing: Annotated[
        float,
        typer.Option(min=0, max=1, help="Diurnal: how far the rate swings, as a share of it."),
    ] = 0.8
    period: Annotated[
        float, typer.Option(min=0, help="Diurnal: seconds of a day; 0: a whole phase.")
    ] = 0.0
    against_base: Annotated[
        bool, typer.Option(help="Add phases in which the base model answers the same load.")
    ] = False
    trace: Annotated[
        Path | None,
        typer.Option(help="Replay this Mooncake trace (JSON Lines); phases last as long as it."),
    ] = None
    trace_unit: Annotated[
        Literal["milliseconds", "seconds"],
        typer.Option(help="Unit of a trace's timestamps: aiperf and Mooncake, or guidellm."),
    ] = "milliseconds"
    write_trace: Annotated[
        Path | None,
        typer.Option(help="Write the requests of the first phase without swaps as a trace."),
    ] = None
    benchmark_report: Annotated[
        Path | None,
        typer.Option(help="Folder for llm-d Benchmark Reports, one for each side of the test."),
    ] = None
    skew: Annotated[
        float, typer.Option(min=0, help="Zipf's exponent: preference for the first adapters.")
    ] = 1.0
    prompt_words: Annotated[str, typer.Option(help="Words in a made-up prompt: 40, or 20-200.")] = (
        "40"
    )
    answer_tokens: Annotated[str, typer.Option(help="Longest answers, in tokens: 16, or 8-64.")] = (
        "16"
    )
    prompts: Annotated[
        Path | None, typer.Option(help="File of prompts, one a line, instead of made-up ones.")
    ] = None
    probe: Annotated[
        Path | None,
        typer.Option(
            help='File of what adapters say: lines of {"adapter": REF, NAME or "base",'
            ' "prompt": …, "expect": REGEX}; without a prompt it applies to every answer.'
        ),
    ] = None
    probe_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests with a prompt of the probes.")
    ] = 0.2
    slo: Annotated[
        Path | None,
        typer.Option(help="YAML file of objectives; by default nothing may fail or be wrong."),
    ] = None
    timeout: Annotated[float, typer.Option(min=0.1, help="Longest request, in seconds.")] = 60.0
    seed: Annotated[int, typer.Option(min=0, help="Seed of arrivals, models and prompts.")] = 0
    report: Annotated[Path, typer.Option(help="The HTML page's file.")] = Path("loadtest.html")

    def read(self, base_share: float) -> Inputs:
        """What the files and options say, with a share for the base model."""
        from tuneproof import loadtest  # noqa: PLC0415 - see above

        trace = loadtest.read_trace(self.trace, self.trace_unit) if self.trace else None
        seconds = trace.seconds if trace else self.duration
        spec = loadtest.LoadSpec(
            rate=len(trace.asks) / seconds if trace else self.rate,
            seconds=seconds,
            arrivals=loadtest.Arrivals(
                self.arrivals,
                burst=self.burst,
                burst_seconds=self.burst_seconds,
                burst_share=self.burst_share,
                swing=self.swing,
                period=self.period or seconds,
            ),
            against_base=self.against_base,
            rounds=self.rounds,
            in_flight=self.full_in_flight,
            full_seconds=self.full_duration,
            skew=self.skew,
            base_share=base_share,
            probe_share=self.probe_share,
            prompt_words=loadtest.Span.parse(self.prompt_words, "--prompt-words"),
            answer_tokens=loadtest.Span.parse(self.answer_tokens, "--answer-tokens"),
            timeout=self.timeout,
            seed=self.seed,
        )
        return Inputs(
            spec,
            loadtest.read_prompts(self.prompts) if self.prompts else (),
            loadtest.read_probes(self.probe) if self.probe else None,
            loadtest.read_slo(self.slo) if self.slo else loadtest.Slo(),
            trace,
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
            help="File of adapter references `name@sha256:…`, one a line. The test declares and"
            " removes them, so none may be declared already."
        ),
    ],
    adapters: Annotated[
        int, typer.Option(min=1, help="How many of them serve at a time; the others wait.")
    ] = 8,
    resident: Annotated[
        list[str] | None,
        typer.Option(help="A declared adapter that also gets requests, and stays; repeatable."),
    ] = None,
    swaps_per_minute: Annotated[float, typer.Option(min=0.01, help="Swaps under load.")] = 30.0,
    base_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests to the base model.")
    ] = 0.1,
    alias_prefix: Annotated[
        str, typer.Option(help="Names the aliases PREFIX-0, PREFIX-1 …")
    ] = "loadtest",
    alias_lag: Annotated[
        float,
        typer.Option(
            min=0,
            help="Seconds until every replica follows a moved alias: its reconcile_seconds and a"
            " little more; 0 for one replica.",
        ),
    ] = 0.0,
    keep: Annotated[bool, typer.Option(help="Leave the adapters declared at the end.")] = False,
    url: Annotated[
        str,
        typer.Option(help="Send requests to the generator's OpenAI API at this URL, not to gRPC."),
    ] = "",
) -> None:
    """Load a generator, with and without swaps in turn, and check the objectives.

    A swap declares a new adapter, waits until it is READY, moves an alias, removes the old one.

    Examples:

      tuneproof loadtest swap --pool refs.txt --adapters 8 --rate 20 --slo slo.yaml

      tuneproof loadtest swap --pool refs.txt --probe probes.jsonl --url http://HOST:8000/v1
    """
    from tuneproof.loadtest import SwapSpec, read_references, run_swaps  # noqa: PLC0415

    spec, prompts, probes, slo, trace = load.read(base_share)
    refs = read_references(pool)
    swaps = SwapSpec(
        adapters=refs[:adapters],
        supply=refs[adapters:],
        rate=swaps_per_minute / 60.0,
        residents=tuple(resident or ()),
        alias_prefix=alias_prefix,
        lag=alias_lag,
        keep=keep,
    )
    endpoints = load.endpoints
    target = endpoints.target("generator")

    async def work(client: GeneratorClient) -> LoadResult:
        base = (await client.pool()).base_model if url else ""
        async with aclosing(_door(endpoints, url, base)) as door:
            return await run_swaps(
                *(door, client, spec, swaps),
                prompts=prompts,
                probes=probes,
                trace=trace,
                progress=say,
            )

    _deliver(load.run(work), slo, load, url or target)


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
        str, typer.Option(help="Base URL of an OpenAI endpoint, such as http://HOST:8000/v1.")
    ] = "",
    base_model: Annotated[
        str, typer.Option(help="The base model's name at that URL, for --against-base.")
    ] = "",
) -> None:
    """Load an endpoint without swaps, to compare servers.

    Examples:

      tuneproof loadtest run --url http://HOST:8000/v1 --model some-model --rate 10

      tuneproof loadtest run --generator HOST:7002 --model short@sha256:… --slo slo.yaml
    """
    from tuneproof.loadtest import run_load  # noqa: PLC0415 - see above

    models = tuple(model or ())
    spec, prompts, probes, slo, trace = load.read(0.0 if models or load.trace else 1.0)
    if trace is not None:
        trace = trace.onto(models, spec) if models else trace
        models = trace.models
    if url and not models:
        raise InvalidInput("an OpenAI endpoint needs the name of a model: give --model")
    if url and not base_model and (load.against_base or _asks_base(trace)):
        raise InvalidInput("requests to the base model need its name at the URL: give --base-model")
    endpoints = load.endpoints
    target = "" if url else endpoints.target("generator")

    async def ask(client: GeneratorClient | None = None) -> LoadResult:
        points: dict[str, str] = {}
        if client is not None:
            points = {alias.name: alias.ref for alias in await client.aliases()}
            points[(await client.pool()).base_model] = ""
        async with aclosing(_door(endpoints, url, base_model, of_generator=False)) as door:
            return await run_load(
                *(door, spec, models),
                prompts=prompts,
                probes=probes,
                points=points,
                trace=trace,
                progress=say,
            )

    result = asyncio.run(ask()) if url else load.run(ask)
    _deliver(result, slo, load, url or target)


def _asks_base(trace: Trace | None) -> bool:
    return trace is not None and not all(ask.model for ask in trace.asks)


def _door(endpoints: Endpoints, url: str, base_model: str, *, of_generator: bool = True) -> Door:
    from tuneproof.loadtest import GrpcDoor, OpenAIDoor  # noqa: PLC0415 - see above

    token, tls = endpoints.token, endpoints.tls
    if url:
        return OpenAIDoor(
            url, base_model=base_model, token=token, of_generator=of_generator, tls=tls
        )
    target = endpoints.target("generator")
    return GrpcDoor(target, token=token, tls=endpoints.tls_of("generator"))


def _deliver(result: LoadResult, slo: Slo, load: LoadOptions, address: str) -> None:
    """Writes the page, prints the result, and exits with 1 when an objective is missed."""
    from tuneproof import loadtest  # noqa: PLC0415 - see above

    result = replace(result, settings={"Address": address})
    checks = loadtest.checks_of(slo, result.figures)
    write_atomically(load.report, loadtest.build_page(result, checks).encode("utf-8", "replace"))
    _export(result, load)
    if load.as_json:
        print_json({**loadtest.result_json(result, checks), "report": str(load.report)})
    else:
        for note in loadtest.notes(result):
            say(note)
        _show(checks)
        out.print(f"{loadtest.headline(checks)} report: {load.report}", markup=False)
    if not all(check.met for check in checks):
        raise typer.Exit(ExitCode.FAILED)


def _export(result: LoadResult, load: LoadOptions) -> None:
    """Writes what other tools read."""
    from tuneproof import loadtest  # noqa: PLC0415 - see above

    if load.write_trace:
        first = next(phase for phase in result.phases if phase.side == "quiet")
        base = result.pool.base_model if result.pool else ""
        text = loadtest.trace_of(first, load.trace_unit, base_model=base)
        write_atomically(load.write_trace, text.encode())
        say(f"{load.write_trace}: {len(first.replies)} requests, timestamps in {load.trace_unit}")
    if load.benchmark_report:
        for side, report in loadtest.benchmark_reports(result).items():
            text = yaml.safe_dump(report, sort_keys=False)
            write_atomically(load.benchmark_report / f"{side}.yaml", text.encode())


def _show(checks: Sequence[Check]) -> None:
    for check in checks:
        found = "not measured" if check.found is None else f"{check.found:.4g}"
        limit = f"{'at least' if check.at_least else 'at most'} {check.limit:g}"
        mark = "met   " if check.met else "MISSED"
        out.print(f"{mark}  {check.name}: {found}, {limit}", markup=False)
