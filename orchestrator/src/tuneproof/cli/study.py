"""`tuneproof study run | status | report | plan`."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from tuneproof.cli.cluster.choosing import in_cluster
from tuneproof.cli.cluster.studying import reach_for, with_pools
from tuneproof.cli.cluster.submitting import SubmittedOption, fetched
from tuneproof.cli.console import ExitCode, err, out, plain_errors, print_json, say
from tuneproof.cli.options import (
    STATE,
    JsonOption,
    ServiceOptions,
    StateOption,
    TokenOption,
    takes_options,
)
from tuneproof.cli.outcome import deliver
from tuneproof.cli.plan_table import (
    forecast_of,
    grid_table,
    pilot_lines,
    pilots_in,
    plan_json,
    plan_lines,
)
from tuneproof.cli.progress import progress_on
from tuneproof.cli.study_status import show_status, watch_status
from tuneproof.local import Supervisor
from tuneproof.sdk import SERVICES, Endpoints
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design.prepare import (
    Prepared,
    Request,
    check_addresses,
    check_keys,
    identities_for,
    is_external,
    prepare,
    recall,
    spec_of,
)
from tuneproof.study.design.specfile import load_spec
from tuneproof.study.local import LocalServices, local_options
from tuneproof.study.looking import looked_at, planned_looks
from tuneproof.study.opened import chain_of, last_run
from tuneproof.study.run import run_study
from tuneproof.study.services import GivenServices, Services, ServiceSource
from tuneproof.study.state.lock import exclusive
from tuneproof.study.state.store import Count, State, open_state
from tuneproof.study.status import cells_of, last_status, status_of
from tuneproof.study.steps.chain import Chain

app = typer.Typer(
    help="Run studies and read what they found.", no_args_is_help=True, rich_markup_mode=None
)

FileArgument = Annotated[Path, typer.Argument(help="The study file (YAML).")]
FilesArgument = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="The study file (YAML), or several.")
]
DataOption = Annotated[
    Path | None, typer.Option(help="The data set's file; overrides the study file.")
]
RubricOption = Annotated[
    list[str] | None,
    typer.Option("--rubric", help="Judge by this rubric instead; repeatable."),
]
MlflowOption = Annotated[
    str,
    typer.Option(
        envvar="TUNEPROOF_MLFLOW",
        help="Log the study to MLflow too: its tracking URI, such as http://127.0.0.1:5000.",
    ),
]
TargetOption = Annotated[
    str, typer.Option(help="host:port of a running service; of a cluster's generator its pool.")
]


@app.command("run")
@partial(
    takes_options, on_interrupt="interrupted; the same command continues where this one stopped"
)
def run_command(
    given: ServiceOptions,
    file: FileArgument,
    *,
    up: Annotated[
        bool, typer.Option(help="Start the services on this machine when there is work for them.")
    ] = False,
    keep_up: Annotated[bool, typer.Option(help="Leave the services running at the end.")] = False,
    data: DataOption = None,
    rubric: RubricOption = None,
    artifacts: Annotated[
        str,
        typer.Option(
            help="Artifact store of trainer and generator; by default <state>/artifacts, of a"
            " cluster that of its trainer."
        ),
    ] = "",
    retriever: TargetOption = "",
    generator: TargetOption = "",
    trainer: TargetOption = "",
    judge: TargetOption = "",
    pool: Annotated[
        list[str] | None,
        typer.Option(help="NAME=HOST:PORT, the generator of one of several models; repeatable."),
    ] = None,
    token: TokenOption = "",
    report: Annotated[
        Path | None,
        typer.Option(help="The report's file; by default <state>/reports/<study>.html."),
    ] = None,
    looks: Annotated[
        int,
        typer.Option(
            min=0, help="Stop as soon as all is decided, at one of so many looks; 0: ask all."
        ),
    ] = 0,
    mlflow: MlflowOption = "",
    as_json: JsonOption = False,
) -> None:
    """Run a study, or the rest of it, and write its report.

    Finished work is never repeated: after an interruption or a crash, run the same command again.

    Examples:

      tuneproof study run studies/demo.yaml --up

      tuneproof study run studies/bioasq.yaml --up --data 12B1_golden.json --looks 4

      tuneproof study run study.yaml --generator gpu1:47802 --trainer gpu1:47803 ...

      tuneproof study run studies/pools.yaml --context my-cluster
    """
    targets = {"retriever": retriever, "generator": generator, "trainer": trainer, "judge": judge}
    request = Request(
        file,
        given.state,
        data,
        model=given.model,
        judge_url=given.judge_url,
        judge_model=given.judge_model,
        rubrics=given.rubrics,
        retriever=given.of_retriever,
        rubric_ids=tuple(rubric or ()),
        targets={**targets, "token": token},
    )
    _check_flags(request, artifacts, up=up)
    prepared = with_pools(prepare(request), pool or ())
    with exclusive(given.state), open_state(given.state, write=True) as results:
        planned = planned_looks(results, prepared, looks)
        work = _run(prepared, request, results, artifacts, up=up, keep_up=keep_up, planned=planned)
        chain = _until_terminated(work)
        complete = deliver(chain, report, given.state, as_json=as_json, mlflow=mlflow)
    if not complete:
        raise SystemExit(ExitCode.PARTLY)


@app.command("status")
def status_command(
    file: FileArgument,
    *,
    watch: Annotated[
        bool, typer.Option(help="Show it again every second, until all is done.")
    ] = False,
    cells: Annotated[
        bool, typer.Option(help="Count every cell of every model too; that reads all answers.")
    ] = False,
    submitted: SubmittedOption = False,
    state: StateOption = STATE,
    as_json: JsonOption = False,
) -> None:
    """Show how far a study is, when it may be done, and which services run.

    Examples:

      tuneproof study status studies/demo.yaml

      tuneproof study status studies/demo.yaml --watch

      tuneproof study status studies/demo.yaml --cells

      tuneproof --context my-cluster study status demo-1a2b3c --submitted
    """
    with plain_errors(on_interrupt="stopped watching; the study goes on"):
        if watch and (as_json or cells or submitted):
            other = "--json" if as_json else "--cells" if cells else "--submitted"
            raise InvalidInput(f"--watch shows the stages to people; leave it out, or {other}")
        if submitted:
            file, state = fetched(str(file), state)
        load_spec(file)  # A mistake in it is reported before a state that is not there.
        with open_state(state, write=False) as results:
            if watch:
                watch_status(partial(_counts, file, state, results), state)
            else:
                each = cells_of(chain_of(file, state, results)) if cells else None
                show_status(_counts(file, state, results), state, each, as_json=as_json)


def _counts(file: Path, folder: Path, state: State) -> list[Count]:
    """What the last run counted; counted anew where none ran this file."""
    spec = spec_of(file, (recall(state, file) or {}).get("rubric_ids"))
    return last_status(state, spec) or status_of(chain_of(file, folder, state))


@app.command("report")
def report_command(
    files: FilesArgument,
    *,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="The report's file; by default <state>/reports/<study>.html, of several studies"
            " <state>/reports/together.html.",
        ),
    ] = None,
    data: DataOption = None,
    mlflow: MlflowOption = "",
    submitted: SubmittedOption = False,
    state: StateOption = STATE,
    as_json: JsonOption = False,
) -> None:
    """Write a report of the results so far. This needs no service.

    Of several studies it writes one report over their data sets, and one of each. A study that ran
    elsewhere is a JSON file that `study export --format json` wrote there.

    Examples:

      tuneproof study report studies/demo.yaml --out report.html

      tuneproof study report studies/demo.yaml --json

      tuneproof study report studies/paper/*.yaml

      tuneproof --context my-cluster study report studies/demo.yaml --submitted
    """
    with plain_errors():
        if submitted:
            if len(files) > 1:
                raise InvalidInput("--submitted is for one study: name one file")
            files[0], state = fetched(str(files[0]), state)
        if len(files) > 1:
            complete = _report_together(files, out_file, state, data, mlflow, as_json=as_json)
        else:
            with last_run(files[0], state, data) as chain:
                complete = deliver(chain, out_file, state, as_json=as_json, mlflow=mlflow)
    if not complete:
        raise SystemExit(ExitCode.PARTLY)


def _report_together(
    files: list[Path],
    path: Path | None,
    state: Path,
    data: Path | None,
    mlflow: str,
    *,
    as_json: bool,
) -> bool:
    from tuneproof.cli.together import deliver_together  # noqa: PLC0415 - it loads the analysis

    if data is not None:
        raise InvalidInput("--data is for the report of one study: leave it out")
    if mlflow:
        say("MLflow gets one study at a time: the joint report is not logged there")
    return deliver_together(files, path, state, as_json=as_json)


@app.command("plan")
def plan_command(
    file: FileArgument,
    *,
    data: DataOption = None,
    model: Annotated[
        str, typer.Option(help="Whose tokens to count: a folder or a Hugging Face id.")
    ] = "",
    state: StateOption = STATE,
    as_json: JsonOption = False,
) -> None:
    """Show what a study would do, what it takes, and what to mend, without doing it.

    The hours are those of earlier runs in the state folder, with the same base model. Where this
    study has answers already, they are the pilot of the next one: how many questions and repeats
    that needs.

    Examples:

      tuneproof study plan studies/demo.yaml

      tuneproof study plan study.yaml --model mistralai/Mistral-7B-Instruct-v0.2
    """
    with plain_errors():
        prepared = prepare(Request(file, state, data, model=model))
        found, why_no_tokens = forecast_of(prepared, state)
        pilots = pilots_in(file, state, data)
        if as_json:
            print_json({**plan_json(prepared, found), "pilot": [asdict(one) for one in pilots]})
            return
        out.print(grid_table(prepared.plan, found))
        for line in plan_lines(found, why_no_tokens, prepared.spec.costs.currency):
            out.print(line, markup=False, soft_wrap=True)
        for line in pilot_lines(pilots):
            out.print(line, markup=False, soft_wrap=True)


def _check_flags(request: Request, artifacts: str, *, up: bool) -> None:
    named = [f"--{name}" for name in SERVICES if request.targets.get(name)]
    named += ["--artifacts"] if artifacts else []
    named += ["--context"] if in_cluster() else []
    if up and named:
        raise InvalidInput(
            f"--up starts the services on this machine, which contradicts {', '.join(named)}:"
            " leave out --up, or the others"
        )


async def _run(
    prepared: Prepared,
    request: Request,
    results: State,
    artifacts: str,
    *,
    up: bool,
    keep_up: bool,
    planned: int,
) -> Chain:
    external = not up and (in_cluster() or is_external(request, os.environ, prepared.sources))
    check_keys(prepared.spec, request.file, os.environ)
    if in_cluster():
        reached = reach_for(prepared, request.targets, artifacts)
        prepared, endpoints, artifacts = reached
    else:
        endpoints = Endpoints() if up else Endpoints.discover(request.state, request.targets)
    if not up:
        check_addresses(prepared, endpoints)
    identities = await identities_for(prepared, request, endpoints, external=external)

    def tell(name: str, what: str) -> None:
        say(f"{name}: {what}")

    bases = prepared.sources.bases
    source: ServiceSource = GivenServices(endpoints, progress=tell, bases=bases)
    if up:
        options = local_options(
            prepared.sources,
            request.state,
            request.judge_url,
            request.judge_model,
            request.retriever,
        )
        source = LocalServices(Supervisor(request.state), options, keep=keep_up, progress=tell)
    store = artifacts or str(request.state.resolve() / "artifacts")
    # On one machine trainer, generator and judge share processors and memory.
    stages = prepared.spec.execution.stages
    in_turn = stages == "in-turn" or (stages == "auto" and not external)
    async with Services(source, identities=identities, sources=prepared.sources) as services:
        for chain in looked_at(results, prepared, request, identities, planned):
            await run_study(chain, services, progress_on(err), artifacts=store, in_turn=in_turn)
    return chain


def _until_terminated(work: Coroutine[Any, Any, Chain]) -> Chain:
    """Runs to the end; SIGTERM interrupts it as Ctrl-C does."""

    async def run() -> Chain:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio.run made one
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        # Raised within the loop, it would make grpc.aio (1.78) read its events twice, and complain.
        raise KeyboardInterrupt from None
