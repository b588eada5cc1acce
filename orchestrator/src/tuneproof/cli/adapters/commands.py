"""`tuneproof adapters list | show | declare | remove | watch | verify`."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from tuneproof.cli.adapters.tables import json_of, show_adapter, show_adapters, told
from tuneproof.cli.adapters.verify import show_report, verify_folder
from tuneproof.cli.adapters.watch import watch_on
from tuneproof.cli.asking import Asked
from tuneproof.cli.console import ExitCode, out, plain_errors, print_json, say
from tuneproof.cli.options import JsonOption, takes_options
from tuneproof.sdk import AdapterInfo, GeneratorClient
from tuneproof.sdk.readiness import states_of

app = typer.Typer(
    help="Load, watch and remove a generator's adapters, and point aliases to them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

RefArgument = Annotated[str, typer.Argument(help="`name@sha256:…`, as in the registry.")]


@dataclass(frozen=True)
class _Watched(Asked):
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line, as changes come.")
    ] = False


@app.command("list")
@takes_options
def list_command(asked: Asked) -> None:
    """List the pool's adapters, with their state on each replica.

    Example:

      tuneproof adapters list
    """

    async def work(client: GeneratorClient) -> None:
        adapters, pool = await client.adapters(), await client.pool()
        if asked.as_json:
            print_json({"adapters": [json_of(one) for one in adapters], "pool": json_of(pool)})
        else:
            show_adapters(adapters, pool, out)

    asked.run(work)


@app.command("show")
@takes_options
def show_command(
    asked: Asked,
    ref: Annotated[str, typer.Argument(help="`name@sha256:…` or an alias.")],
) -> None:
    """Show all that is known of an adapter: states with their times, stages, replicas, requests.

    Example:

      tuneproof adapters show live --json
    """
    adapter = asked.run(lambda client: client.adapter(ref))
    if asked.as_json:
        print_json(json_of(adapter))
    else:
        show_adapter(adapter, out)


@app.command("declare")
@takes_options
def declare_command(
    asked: Asked,
    ref: RefArgument,
    *,
    wait: Annotated[
        bool, typer.Option(help="Return when every live replica serves it, or it failed.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait at most.")] = 600.0,
    required: Annotated[
        bool, typer.Option(help="The generator is not ready without it, and never evicts it.")
    ] = False,
    on_full: Annotated[
        Literal["refuse", "evict-idle"],
        typer.Option(help="At full capacity: refuse, or evict what was idle for longest."),
    ] = "refuse",
) -> None:
    """Add an adapter of the registry to the pool: it is fetched, verified, loaded, then served.

    Ends with 1 when --wait sees it fail, or the time is over.

    Examples:

      tuneproof adapters declare short@sha256:... --wait

      tuneproof adapters declare short@sha256:... --wait --on-full evict-idle --json
    """

    async def work(client: GeneratorClient) -> AdapterInfo:
        start = time.monotonic()
        declared = await client.declare(ref, required=required, on_full=on_full.replace("-", "_"))
        if not wait:
            return declared
        return await client.wait_ready(
            ref, timeout=timeout, on_change=lambda now: say(_line(now, start))
        )

    adapter = asked.run(work)
    if asked.as_json:
        print_json(json_of(adapter))
    else:
        out.print(f"{adapter.ref}: {states_of(adapter)}", markup=False)


@app.command("remove")
@takes_options
def remove_command(
    asked: Asked,
    ref: RefArgument,
    *,
    drain: Annotated[
        float, typer.Option(min=0, help="Seconds that running requests may take; then they end.")
    ] = 30.0,
) -> None:
    """Take an adapter out of the pool, after its running requests. The registry keeps it.

    Example:

      tuneproof adapters remove short@sha256:... --drain 5
    """

    async def work(client: GeneratorClient) -> None:
        await client.remove(ref, drain_seconds=drain, timeout=drain + 90)

    asked.run(work)
    if asked.as_json:
        print_json({"removed": ref})
    else:
        out.print(f"{ref}: removed", markup=False)


@app.command("watch")
@takes_options
def watch_command(
    asked: _Watched,
    refs: Annotated[list[str] | None, typer.Argument(help="Only these; none: all.")] = None,
) -> None:
    """Show the adapters as they are, then each change, until Ctrl-C.

    Goes on at another replica, or when the generator is back, within a minute.

    Examples:

      tuneproof adapters watch

      tuneproof adapters watch short@sha256:... --json
    """

    def show(adapter: AdapterInfo) -> None:
        if asked.as_json:
            print(json.dumps(json_of(adapter), ensure_ascii=False))
            sys.stdout.flush()
        else:
            out.print(f"{time.strftime('%H:%M:%S')}  {adapter.ref}  {told(adapter)}", markup=False)

    asked.run(lambda client: watch_on(client, refs or (), show))


@app.command("verify")
def verify_command(
    path: Annotated[Path, typer.Argument(help="Folder of an adapter: peft's, or a registry's.")],
    *,
    base: Annotated[
        Path | None,
        typer.Option(help="Folder of the base model that is to serve it, in Hugging Face format."),
    ] = None,
    max_rank: Annotated[
        int | None, typer.Option(min=1, help="The largest rank that the generator is set up for.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check an adapter as a generator would, here and without one; list all its defects.

    Ends with 1 when there is a defect.

    Examples:

      tuneproof adapters verify out/checkpoint-200 --base models/base --max-rank 16

      tuneproof adapters verify .tuneproof/artifacts/adapters/short/0123... --json
    """
    with plain_errors():
        report = verify_folder(path, base, max_rank)
        show_report(path, report, as_json=as_json)
        if not report.ok:
            raise SystemExit(ExitCode.FAILED)


def _line(adapter: AdapterInfo, start: float) -> str:
    return f"{time.monotonic() - start:6.1f} s  {told(adapter)}"
