"""`tuneproof loadtest`: load with adapters swapped meanwhile, or load alone on any endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneproof.cli.asking import JsonOption, StateOption, TokenOption
from tuneproof.cli.console import ExitCode, out, plain_errors, print_json, say
from tuneproof.sdk import Endpoints, GeneratorClient
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.files import write_atomically

if TYPE_CHECKING:
    from tuneproof.loadtest import Check, Door, LoadResult, LoadSpec, Probes, Slo

app = typer.Typer(
    help="Load a generator and swap its adapters meanwhile, or load any OpenAI endpoint.",
    no_args_is_help=True,
)

RateOption = Annotated[float, typer.Option(min=0.01, help="Requests a second, on average.")]
DurationOption = Annotated[float, typer.Option(min=0.1, help="Seconds of a phase of arrivals.")]
RoundsOption = Annotated[int, typer.Option(min=1, help="Every phase comes once in each round.")]
InFlightOption = Annotated[
    int,
    typer.Option(min=0, help="Also phases with so many requests under way all the time; 0: none."),
]
SkewOption = Annotated[
    float, typer.Option(min=0, help="Zipf's exponent: how much more the first adapters are asked.")
]
WordsOption = Annotated[str, typer.Option(help="Words of a made-up prompt: 40, or 20-200.")]
TokensOption = Annotated[str, typer.Option(help="Longest answers in tokens: 16, or 8-64.")]
PromptsOption = Annotated[
    Path | None, typer.Option(help="File of prompts, one a line, in place of made-up ones.")
]
ProbeOption = Annotated[
    Path | None,
    typer.Option(
        help='What adapters say: lines of {"adapter": REF, NAME or "base", "prompt": …, "expect":'
        " REGEX}; without prompt it holds for every answer."
    ),
]
ProbeShareOption = Annotated[
    float, typer.Option(min=0, max=1, help="Share of requests with one of the probes' prompts.")
]
SloOption = Annotated[
    Path | None,
    typer.Option(help="YAML file of objectives; without it nothing may fail or be wrong."),
]
TimeoutOption = Annotated[float, typer.Option(min=0.1, help="Seconds that a request may take.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of arrivals, models and prompts.")]
ReportOption = Annotated[Path, typer.Option(help="Where the HTML page is written.")]
GeneratorOption = Annotated[str, typer.Option(help="host:port of the generator.")]


@app.command("swap")
def swap(
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
    rate: RateOption = 20.0,
    duration: DurationOption = 30.0,
    rounds: RoundsOption = 3,
    full_in_flight: InFlightOption = 0,
    full_duration: Annotated[
        float, typer.Option(min=0.1, help="Seconds of a phase of full load.")
    ] = 10.0,
    skew: SkewOption = 1.0,
    base_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests to the base model.")
    ] = 0.1,
    prompt_words: WordsOption = "40",
    answer_tokens: TokensOption = "16",
    prompts: PromptsOption = None,
    probe: ProbeOption = None,
    probe_share: ProbeShareOption = 0.2,
    slo: SloOption = None,
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
    timeout: TimeoutOption = 60.0,
    seed: SeedOption = 0,
    keep: Annotated[bool, typer.Option(help="Leave the adapters declared at the end.")] = False,
    url: Annotated[
        str, typer.Option(help="Send requests to this OpenAI URL of the generator, not to gRPC.")
    ] = "",
    generator: GeneratorOption = "",
    token: TokenOption = "",
    state: StateOption = Path(".tuneproof"),
    report: ReportOption = Path("loadtest.html"),
    as_json: JsonOption = False,
) -> None:
    """Load a generator, with and without swaps in turn, and say whether the objectives are met.

    A swap: new content is declared, READY is waited for, an alias moves to it, the old is removed.

    Examples:

      tuneproof loadtest swap --pool refs.txt --adapters 8 --rate 20 --slo slo.yaml

      tuneproof loadtest swap --pool refs.txt --probe probes.jsonl --url http://HOST:8000/v1
    """
    from tuneproof.loadtest import SwapSpec, run_swaps  # noqa: PLC0415 - numpy takes its time

    with plain_errors():
        load = _load(
            rate=rate,
            seconds=duration,
            rounds=rounds,
            in_flight=full_in_flight,
            full_seconds=full_duration,
            skew=skew,
            base_share=base_share,
            probe_share=probe_share,
            prompt_words=prompt_words,
            answer_tokens=answer_tokens,
            timeout=timeout,
            seed=seed,
        )
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
        given, probes, objectives = _read(prompts, probe, slo)
        endpoints = Endpoints.discover(state, {"generator": generator, "token": token})
        target = endpoints.target("generator")

        async def run() -> LoadResult:
            async with GeneratorClient(target, token=endpoints.token) as client:
                base = (await client.pool()).base_model if url else ""
                async with aclosing(_door(target, url, base, endpoints.token)) as door:
                    return await run_swaps(
                        door, client, load, swaps, prompts=given, probes=probes, progress=say
                    )

        _deliver(asyncio.run(run()), objectives, report, url or target, as_json=as_json)


@app.command("run")
def run(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model, adapter or alias, the most popular first; repeatable."),
    ] = None,
    url: Annotated[
        str, typer.Option(help="Base URL of an OpenAI endpoint, as http://HOST:8000/v1.")
    ] = "",
    rate: RateOption = 20.0,
    duration: DurationOption = 60.0,
    rounds: RoundsOption = 1,
    full_in_flight: InFlightOption = 0,
    full_duration: Annotated[
        float, typer.Option(min=0.1, help="Seconds of a phase of full load.")
    ] = 10.0,
    skew: SkewOption = 1.0,
    prompt_words: WordsOption = "40",
    answer_tokens: TokensOption = "16",
    prompts: PromptsOption = None,
    probe: ProbeOption = None,
    probe_share: ProbeShareOption = 0.2,
    slo: SloOption = None,
    timeout: TimeoutOption = 60.0,
    seed: SeedOption = 0,
    generator: GeneratorOption = "",
    token: TokenOption = "",
    state: StateOption = Path(".tuneproof"),
    report: ReportOption = Path("loadtest.html"),
    as_json: JsonOption = False,
) -> None:
    """Load an endpoint without swapping anything, so that servers can be compared.

    Examples:

      tuneproof loadtest run --url http://HOST:8000/v1 --model some-model --rate 10

      tuneproof loadtest run --generator HOST:7002 --model short@sha256:… --slo slo.yaml
    """
    from tuneproof.loadtest import run_load  # noqa: PLC0415 - numpy takes its time

    with plain_errors():
        models = tuple(model or ())
        if url and not models:
            raise InvalidInput("an OpenAI endpoint is asked for a model by name: give --model")
        load = _load(
            rate=rate,
            seconds=duration,
            rounds=rounds,
            in_flight=full_in_flight,
            full_seconds=full_duration,
            skew=skew,
            base_share=0.0 if models else 1.0,
            probe_share=probe_share,
            prompt_words=prompt_words,
            answer_tokens=answer_tokens,
            timeout=timeout,
            seed=seed,
        )
        given, probes, objectives = _read(prompts, probe, slo)
        endpoints = Endpoints.discover(state, {"generator": generator, "token": token})
        target = "" if url else endpoints.target("generator")

        async def ask() -> LoadResult:
            async with AsyncExitStack() as held:
                points: dict[str, str] = {}
                if target:
                    client = await held.enter_async_context(
                        GeneratorClient(target, token=endpoints.token)
                    )
                    points = {alias.name: alias.ref for alias in await client.aliases()}
                    points[(await client.pool()).base_model] = ""
                door = _door(target, url, "", endpoints.token)
                await held.enter_async_context(aclosing(door))
                return await run_load(
                    door, load, models, prompts=given, probes=probes, points=points, progress=say
                )

        _deliver(asyncio.run(ask()), objectives, report, url or target, as_json=as_json)


def _load(*, prompt_words: str, answer_tokens: str, **rest: float) -> LoadSpec:
    from tuneproof.loadtest import LoadSpec, Span  # noqa: PLC0415 - see above

    return LoadSpec(
        prompt_words=Span.parse(prompt_words, "--prompt-words"),
        answer_tokens=Span.parse(answer_tokens, "--answer-tokens"),
        **rest,  # type: ignore[arg-type]
    )


def _read(
    prompts: Path | None, probe: Path | None, slo: Path | None
) -> tuple[Sequence[str], Probes | None, Slo]:
    from tuneproof.loadtest import Slo, read_probes, read_prompts, read_slo  # noqa: PLC0415

    return (
        read_prompts(prompts) if prompts else (),
        read_probes(probe) if probe else None,
        read_slo(slo) if slo else Slo(),
    )


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
    from tuneproof.loadtest import GrpcDoor, OpenAIDoor  # noqa: PLC0415 - see above

    if url:
        return OpenAIDoor(url, base_model=base_model, token=token, of_generator=bool(base_model))
    return GrpcDoor(target, token=token)


def _deliver(result: LoadResult, slo: Slo, path: Path, address: str, *, as_json: bool) -> None:
    """Writes the page, prints what it found, and ends with 1 where an objective is missed."""
    from tuneproof import loadtest  # noqa: PLC0415 - see above

    result = loadtest.with_settings(result, Address=address)
    checks = loadtest.checks_of(slo, result.figures)
    write_atomically(path, loadtest.build_page(result, checks).encode("utf-8", "replace"))
    if as_json:
        print_json({**loadtest.result_json(result, checks), "report": str(path)})
    else:
        for note in loadtest.notes(result):
            say(note)
        _show(checks)
        out.print(f"{loadtest.headline(checks)} report: {path}", markup=False)
    if not all(check.met for check in checks):
        raise typer.Exit(ExitCode.FAILED)


def _show(checks: Sequence[Check]) -> None:
    for check in checks:
        found = "not measured" if check.found is None else f"{check.found:.4g}"
        limit = f"{'at least' if check.at_least else 'at most'} {check.limit:g}"
        out.print(
            f"{'met   ' if check.met else 'MISSED'}  {check.name}: {found}, {limit}", markup=False
        )
