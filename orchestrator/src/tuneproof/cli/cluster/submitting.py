"""`tuneproof study submit | submitted | logs | cancel`: studies that run in the cluster."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tuneproof.cli.cluster.choosing import cluster, reach
from tuneproof.cli.cluster.studying import calls_of
from tuneproof.cli.console import ExitCode, give, out, plain_errors, say
from tuneproof.cli.options import JsonOption, TokenOption
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design.models import ApiSpec
from tuneproof.study.design.prepare import Request, prepare
from tuneproof.study.design.specfile import load_spec

if TYPE_CHECKING:
    from tuneproof.cluster.submission import Submissions

CACHE = "submitted"
"""Folder of the state folder that holds what was fetched, by name."""

StudyArgument = Annotated[
    str, typer.Argument(metavar="FILE|NAME", help="A study file, or the name of a submitted study.")
]
SubmittedOption = Annotated[
    bool,
    typer.Option("--submitted", help="Of a study that was submitted to the cluster: FILE or NAME."),
]
_EXITS = {
    "done": ExitCode.DONE,
    "partly": ExitCode.PARTLY,
    "failed": ExitCode.FAILED,
    "cancelled": ExitCode.FAILED,
}


def submit_command(
    file: Annotated[Path, typer.Argument(help="The study file (YAML).")],
    *,
    data: Annotated[
        Path | None, typer.Option(help="The data set's file; overrides the study file.")
    ] = None,
    rubric: Annotated[
        list[str] | None,
        typer.Option("--rubric", help="Judge by this rubric instead; repeatable."),
    ] = None,
    looks: Annotated[
        int, typer.Option(min=0, help="Stop as soon as all is decided, at one of so many looks.")
    ] = 0,
    name: Annotated[
        str, typer.Option(help="Its name in the cluster; by default one of this study and user.")
    ] = "",
    artifacts: Annotated[
        str, typer.Option(help="Artifact store; by default that of the cluster's trainer.")
    ] = "",
    token: TokenOption = "",
    secret: Annotated[
        list[str] | None,
        typer.Option("--secret", help="A Secret whose keys become variables; repeatable."),
    ] = None,
    storage: Annotated[str, typer.Option(help="Size of the volume of its state.")] = "2Gi",
    storage_class: Annotated[
        str, typer.Option(help="Class of that volume; by default the cluster's.")
    ] = "",
    image: Annotated[
        str, typer.Option(help="Image of `tuneproof`; by default beside that of the judge.")
    ] = "",
    pod: Annotated[
        Path | None,
        typer.Option(help="File with more of its pods: tolerations, imagePullSecrets, env (YAML)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a study in the cluster, as a Job that goes on without this machine.

    The study file and the files that it names go along, up to 1 MB packed. Its state is on a volume
    of its own. The same command again says how it is; after a failure it goes on.

    Examples:

      tuneproof --context my-cluster study submit studies/demo.yaml

      tuneproof --context my-cluster study logs studies/demo.yaml --follow

      tuneproof --context my-cluster study report studies/demo.yaml --submitted
    """
    with plain_errors():
        from tuneproof.cluster.submission import Asked, pack  # noqa: PLC0415 - an extra

        there = reach()
        prepared = prepare(Request(file, Path(), data, rubric_ids=tuple(rubric or ())))
        bundle = pack(file, data)
        submissions = _submissions()
        flags = [f"--rubric={each}" for each in rubric or ()]
        flags += [f"--looks={looks}"] if looks else []
        asked = Asked(
            image,
            storage,
            storage_class,
            tuple(secret or ()),
            artifacts,
            token,
            any(isinstance(model, ApiSpec) for model in prepared.spec.models),
            pod,
        )
        services, addresses = calls_of(prepared, there)
        name = name or submissions.name_for(prepared.spec.study)
        plan = submissions.plan(name, bundle, [*flags, *addresses], services, asked)
        told = submissions.submit(plan)
        give({"name": plan.name, "told": told}, told, as_json=as_json)


def submitted_command(*, as_json: JsonOption = False) -> None:
    """List the studies that were submitted to the cluster, of all users.

    Example:

      tuneproof --context my-cluster study submitted
    """
    with plain_errors():
        found = _submissions().list()
        table = Table("name", "state", "submitted by", "since", box=None)
        for one in found:
            table.add_row(one.name, one.progress.state, one.owner, one.since)
        value = {"submitted": [asdict(one) for one in found]}
        give(value, lambda: out.print(table), as_json=as_json)


def logs_command(
    study: StudyArgument,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the study has ended.")
    ] = False,
) -> None:
    """Show what a submitted study says. Ctrl-C leaves it going.

    With --follow the exit code is that of the study: 0 complete, 3 partly, 1 failed.

    Example:

      tuneproof --context my-cluster study logs studies/demo.yaml --follow
    """
    with plain_errors(on_interrupt="stopped reading; the study goes on"):
        from tuneproof.cluster.submission.progress import lines  # noqa: PLC0415 - an extra

        submissions = _submissions()
        name = named(study, submissions)
        submissions.find(name)
        for text in lines(cluster(), name, follow=follow):
            sys.stdout.write(text)
            sys.stdout.flush()
        if not follow:
            return
        ended = submissions.progress(name)
        say(f"{name}: {ended.state}{f', {ended.detail}' if ended.detail else ''}")
    raise SystemExit(_EXITS[ended.state])


def cancel_command(
    study: StudyArgument,
    *,
    purge: Annotated[bool, typer.Option(help="Delete its state and files too.")] = False,
) -> None:
    """End a submitted study. Its state stays, and submitting it again goes on with it.

    Examples:

      tuneproof --context my-cluster study cancel studies/demo.yaml

      tuneproof --context my-cluster study cancel demo-1a2b3c --purge
    """
    with plain_errors():
        submissions = _submissions()
        out.print(submissions.cancel(named(study, submissions), purge=purge), markup=False)


def named(study: str, submissions: Submissions) -> str:
    """The name in the cluster of a study file's submission, or the name itself."""
    if Path(study).is_file():
        return submissions.name_for(load_spec(Path(study)).study)
    if study.endswith((".yaml", ".yml")):
        raise InvalidInput(f"there is no file {study}")
    return study


def fetched(study: str, state: Path) -> tuple[Path, Path]:
    """A submitted study as it is now, on this machine: its file, and a state folder.

    Args:
        state: the state folder, of which a folder keeps it.
    """
    from tuneproof.cluster.submission import fetch  # noqa: PLC0415 - an extra

    submissions = _submissions()
    name = named(study, submissions)
    folder = state / CACHE / name
    file = fetch(cluster(), submissions.find(name), folder)
    say(f"{name}: {submissions.progress(name).state}; --state {folder} reads it again")
    return file, folder


def _submissions() -> Submissions:
    cluster()
    from tuneproof.cluster.submission import Submissions  # noqa: PLC0415 - an extra

    return Submissions(reach())
