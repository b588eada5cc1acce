"""`tuneproof adapters list | show | declare | remove | watch | verify`."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from tuneproof.cli.adapters.stored import STORE_HELP, list_stored, show_stored
from tuneproof.cli.adapters.tables import json_of, show_adapter, show_adapters, summary_of
from tuneproof.cli.adapters.verify import show_report, verify_folder
from tuneproof.cli.adapters.watch import watch_on
from tuneproof.cli.asking import Asked
from tuneproof.cli.console import ExitCode, out, plain_errors, say
from tuneproof.cli.options import JsonOption, takes_options
from tuneproof.sdk import AdapterInfo, GeneratorClient, PoolInfo
from tuneproof.sdk.readiness import states_of

app = typer.Typer(
    help="Load, watch and remove a generator's adapters, and point aliases to them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

StoreOption = Annotated[
    str,
    typer.Option(help=f"Ask this artifact store, not a generator. {STORE_HELP}"),
]
RefArgument = Annotated[str, typer.Argument(help="`name@sha256:…`, as in the registry.")]


@dataclass(frozen=True)
class _Watched(Asked):
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each change as a line of JSON.")
    ] = False


@app.command("list")
@takes_options
def list_command(asked: Asked, *, artifacts: StoreOption = "") -> None:
    """List the pool's adapters, with their state on each replica; or those of an artifact store.

    Examples:

      tuneproof adapters list

      tuneproof adapters list --artifacts .tuneproof/artifacts
    """
    if artifacts:
        list_stored(artifacts, as_json=asked.as_json)
        return

    async def work(client: GeneratorClient) -> tuple[list[AdapterInfo], PoolInfo]:
        return await client.adapters(), await client.pool()

    adapters, pool = asked.run(work)
    value = {"adapters": [json_of(one) for one in adapters], "pool": json_of(pool)}
    asked.give(value, lambda: show_adapters(adapters, pool))


@app.command("show")
@takes_options
def show_command(
    asked: Asked,
    ref: Annotated[str, typer.Argument(help="`name@sha256:…` or an alias.")],
    *,
    artifacts: StoreOption = "",
) -> None:
    """Show an adapter in full: states with their times, stages, replicas, requests, precisions; or,
    of an artifact store, what it is and where it comes from.

    Examples:

      tuneproof adapters show live --json

      tuneproof adapters show short@sha256:... --artifacts s3://models/tuneproof
    """
    if artifacts:
        show_stored(artifacts, ref, as_json=asked.as_json)
        return

    async def work(client: GeneratorClient) -> tuple[AdapterInfo, PoolInfo]:
        return await client.adapter(ref), await client.pool()

    adapter, pool = asked.run(work)
    value = {**json_of(adapter), "served_precision": pool.dtype}
    asked.give(value, lambda: show_adapter(adapter, pool.dtype))


@app.command("declare")
@takes_options
def declare_command(
    asked: Asked,
    ref: RefArgument,
    *,
    wait: Annotated[
        bool, typer.Option(help="Wait until every live replica serves it, or it fails.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Longest wait, in seconds.")] = 600.0,
    required: Annotated[
        bool, typer.Option(help="The generator is ready only with it, and never evicts it.")
    ] = False,
    on_full: Annotated[
        Literal["refuse", "evict-idle"],
        typer.Option(help="At full capacity: refuse, or evict the adapter idle for longest."),
    ] = "refuse",
    allow_no_effect: Annotated[
        bool, typer.Option("--allow-no-effect", help="Serve it even if it changes nothing.")
    ] = False,
) -> None:
    """Add an adapter from the registry to the pool, which fetches, verifies, loads and serves it.

    Exits with 1 when the adapter fails while --wait waits, or the time runs out.

    Examples:

      tuneproof adapters declare short@sha256:... --wait

      tuneproof adapters declare short@sha256:... --wait --on-full evict-idle --json
    """

    async def work(client: GeneratorClient) -> AdapterInfo:
        start = time.monotonic()
        declared = await client.declare(
            ref,
            required=required,
            on_full=on_full.replace("-", "_"),
            allow_no_effect=allow_no_effect,
        )
        if not wait:
            return declared
        return await client.wait_ready(
            ref,
            timeout=timeout,
            on_change=lambda now: say(f"{time.monotonic() - start:6.1f} s  {summary_of(now)}"),
        )

    adapter = asked.run(work)
    asked.give(json_of(adapter), f"{adapter.ref}: {states_of(adapter)}")


@app.command("remove")
@takes_options
def remove_command(
    asked: Asked,
    ref: RefArgument,
    *,
    drain: Annotated[
        float, typer.Option(min=0, help="Seconds that running requests may still take.")
    ] = 30.0,
) -> None:
    """Remove an adapter from the pool when its running requests end. The registry keeps it.

    Example:

      tuneproof adapters remove short@sha256:... --drain 5
    """
    asked.run(lambda client: client.remove(ref, drain_seconds=drain, timeout=drain + 90))
    asked.give({"removed": ref}, f"{ref}: removed")


@app.command("watch")
@takes_options
def watch_command(
    asked: _Watched,
    refs: Annotated[
        list[str] | None, typer.Argument(help="References of the adapters to watch; none: all.")
    ] = None,
) -> None:
    """Show the adapters as they are, then each change, until Ctrl-C.

    When the replica goes away, it asks another one, or waits up to a minute.

    Examples:

      tuneproof adapters watch

      tuneproof adapters watch short@sha256:... --json
    """

    def show(adapter: AdapterInfo) -> None:
        if asked.as_json:
            print(json.dumps(json_of(adapter), ensure_ascii=False), flush=True)
        else:
            out.print(
                f"{time.strftime('%H:%M:%S')}  {adapter.ref}  {summary_of(adapter)}", markup=False
            )

    asked.run(lambda client: watch_on(client, refs or (), show))


@app.command("verify")
def verify_command(
    path: Annotated[
        Path, typer.Argument(help="An adapter's folder, as peft or the registry writes it.")
    ],
    *,
    base: Annotated[
        Path | None,
        typer.Option(help="Folder of its base model, in Hugging Face format."),
    ] = None,
    max_rank: Annotated[
        int | None, typer.Option(min=1, help="The generator's largest rank (--max-lora-rank).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check an adapter as a generator would, but without one, and list all its defects.

    Exits with 1 when it finds a defect.

    Examples:

      tuneproof adapters verify out/checkpoint-200 --base models/base --max-rank 16

      tuneproof adapters verify .tuneproof/artifacts/adapters/short/0123... --json
    """
    with plain_errors():
        report = verify_folder(path, base, max_rank)
        show_report(path, report, as_json=as_json)
        if not report.ok:
            raise SystemExit(ExitCode.FAILED)
