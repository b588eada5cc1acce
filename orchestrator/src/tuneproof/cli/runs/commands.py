"""`tuneproof runs create | list | show | watch | cancel`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from tuneproof.cli.asking import AskedTrainer
from tuneproof.cli.console import err, say
from tuneproof.cli.options import takes_options
from tuneproof.cli.runs.asking import AskedRun, DataArgument, id_of, takes_hyperparameters
from tuneproof.cli.runs.completing import complete_run_ids
from tuneproof.cli.runs.following import code_of, left_going, shown_on
from tuneproof.cli.runs.tables import json_of, show_run, show_runs, summary_of
from tuneproof.sdk import RunInfo, RunSpec, TrainerClient
from tuneproof.servicekit.errors import InvalidInput

_MOST_TRIES = 50

app = typer.Typer(
    help="Train adapters: start runs, watch and compare them, and search for hyper-parameters.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="The run's id.", autocompletion=complete_run_ids)
]


@dataclass(frozen=True)
class _Watched(AskedTrainer):
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each change as a line of JSON.")
    ] = False


@app.command("create")
@takes_options
@takes_hyperparameters
def create_command(
    asked: AskedRun,
    data: DataArgument = "",
    *,
    given: Mapping[str, Any],
    run_id: Annotated[
        str,
        typer.Option(
            "--id", help="The run's id; by default one that stands for all that is asked."
        ),
    ] = "",
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")] = False,
) -> None:
    """Train an adapter on a file of conversations, and wait for it.

    Ctrl-C leaves the run going. The same command again comes back to it, or starts a failed one
    anew. Exits with 1 when the run fails or is cancelled.

    Examples:

      tuneproof runs create train.jsonl --adapter short

      tuneproof runs create train.jsonl --adapter short --rank 64 --learning-rate 1e-4 --detach

      tuneproof runs create --spec run.yaml --seed 7 --json
    """
    wanted = asked.run_spec(data, given)

    async def create(client: TrainerClient) -> RunInfo:
        if run_id:
            return await client.create(run_id, wanted)
        return await _create_anew(client, id_of(wanted.adapter_name, wanted), wanted)

    run = asked.run(create)
    if detach:
        asked.give(
            json_of(run), f"run {run.id} is {run.state}; see `tuneproof runs watch {run.id}`"
        )
        return
    if not run.ended:
        run = _followed(asked, run.id)
    _give_end(asked, run)


@app.command("list")
@takes_options
def list_command(
    asked: AskedTrainer,
    *,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only runs in this state, such as running; may be repeated."),
    ] = None,
    first: Annotated[int, typer.Option(min=0, help="At most so many; 0: all.")] = 0,
) -> None:
    """List the trainer's runs, the newest first.

    Examples:

      tuneproof runs list

      tuneproof runs list --only queued --only running --json
    """
    known = ("queued", "running", "succeeded", "failed", "cancelled")
    if wrong := [each for each in only or () if each not in known]:
        raise InvalidInput(f"--only is {wrong[0]!r}, not one of {', '.join(known)}")
    found = asked.run(lambda client: client.list())
    chosen = [run for run in found if not only or run.state in only]
    chosen = chosen[: first or None]
    asked.give({"runs": [json_of(run) for run in chosen]}, lambda: show_runs(chosen))


@app.command("show")
@takes_options
def show_command(asked: AskedTrainer, run: RunArgument) -> None:
    """Show a run in full: settings, times, losses, and what made its adapter.

    Example:

      tuneproof runs show short-0123abcd --json
    """
    found = asked.run(lambda client: client.get(run))
    asked.give(json_of(found), lambda: show_run(found))


@app.command("watch")
@takes_options
def watch_command(asked: _Watched, run: RunArgument) -> None:
    """Show a run's loss as it falls, until the run ends. Ctrl-C leaves it going.

    Any number of watchers may look at one run. A watch outlives a restart of the trainer. Exits
    with 1 when the run fails or is cancelled.

    Examples:

      tuneproof runs watch short-0123abcd

      tuneproof runs watch short-0123abcd --json
    """
    ended = _followed(asked, run)
    if not asked.as_json:
        _give_end(asked, ended)
    raise SystemExit(code_of(ended))


@app.command("cancel")
@takes_options
def cancel_command(asked: AskedTrainer, run: RunArgument) -> None:
    """Stop a run that has not ended. Cancelling a cancelled run changes nothing.

    Exits with 1 when it has succeeded or failed.

    Example:

      tuneproof runs cancel short-0123abcd
    """
    found = asked.run(lambda client: client.cancel(run))
    asked.give(json_of(found), f"run {found.id} is {found.state}")


async def _create_anew(client: TrainerClient, stem: str, spec: RunSpec) -> RunInfo:
    """The run of a spec that goes on or has succeeded, else a new one after those that failed."""
    for number in range(1, _MOST_TRIES + 1):
        run = await client.create(stem if number == 1 else f"{stem}-{number}", spec)
        if run.state not in {"failed", "cancelled"}:
            return run
        say(f"run {run.id} {run.state} before ({run.reason}); another one starts")
    return run


def _followed(asked: AskedTrainer, run_id: str) -> RunInfo:
    """Shows a run until its end: as JSON each change on a line, of `watch` alone."""

    known = 0

    def tell(run: RunInfo) -> None:
        nonlocal known
        fresh = [point for point in run.losses if point[0] > known]
        known = run.losses[-1][0] if run.losses else 0
        print(json.dumps({**json_of(run), "losses": fresh}, ensure_ascii=False), flush=True)

    with left_going(run_id):
        if isinstance(asked, _Watched) and asked.as_json:
            return asked.run(lambda client: client.wait(run_id, on_progress=tell))
        with shown_on(err) as show:
            return asked.run(lambda client: client.wait(run_id, on_progress=show))


def _give_end(asked: AskedTrainer, run: RunInfo) -> None:
    words = run.adapter_ref if run.state == "succeeded" else run.reason or "no reason given"
    asked.give(json_of(run), f"run {run.id} {summary_of(run) if not words else run.state}: {words}")
    if code := code_of(run):
        raise SystemExit(code)
