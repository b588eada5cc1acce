"""The command's root: global flags and the groups."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from tuneproof.cli import ask, doctor, gate, labels, loadtest, operator, services, study
from tuneproof.cli.adapters import aliases, merging, moving, pairs, stored
from tuneproof.cli.adapters import commands as adapters
from tuneproof.cli.cluster import submitting
from tuneproof.cli.cluster.choosing import (
    NAMESPACE,
    ContextOption,
    NamespaceOption,
    Root,
    ViaOption,
    chosen,
)
from tuneproof.cli.console import behaviour, plain_errors
from tuneproof.cli.corpus import commands as corpus
from tuneproof.cli.corpus import evaluating
from tuneproof.cli.data import commands as data
from tuneproof.cli.exchange import differing, exporting, importing, sweeping
from tuneproof.cli.judge import calibrating, grading, redteam
from tuneproof.cli.judge import commands as judge
from tuneproof.cli.runs import commands as runs
from tuneproof.cli.runs import comparing, planning
from tuneproof.cli.runs import sweeping as sweeps
from tuneproof.servicekit.tracing import tracing

app = typer.Typer(
    name="tuneproof",
    cls=Root,
    help="Does fine-tuning help your RAG system? Prove it before you ship the adapter.",
    epilog="Examples: tuneproof study run studies/demo.yaml --up;"
    " tuneproof --context my-cluster ask 'What is new?'",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        print("tuneproof", version("tuneproof"))
    except PackageNotFoundError:
        print("tuneproof, not installed")
    raise typer.Exit


@app.callback()
def root(
    *,
    context: ContextOption = "",
    namespace: NamespaceOption = NAMESPACE,
    via: ViaOption = "forward",
    debug: Annotated[bool, typer.Option(help="Show the traceback of a failure.")] = False,
    version: Annotated[  # noqa: ARG001 - the callback prints it
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Does fine-tuning help your RAG system? Prove it before you ship the adapter."""
    behaviour.debug = debug
    chosen.context, chosen.namespace, chosen.via = context, namespace, via


study.app.command("diff")(differing.diff_command)
study.app.command("export")(exporting.export_command)
study.app.command("import")(importing.import_command)
study.app.command("gc")(sweeping.gc_command)
study.app.command("submit")(submitting.submit_command)
study.app.command("submitted")(submitting.submitted_command)
study.app.command("logs")(submitting.logs_command)
study.app.command("cancel")(submitting.cancel_command)
study.app.add_typer(labels.app, name="label")
app.add_typer(study.app, name="study")
adapters.app.add_typer(aliases.app)
adapters.app.command("push")(moving.push_command)
adapters.app.command("pull")(moving.pull_command)
adapters.app.command("diff")(pairs.diff_command)
adapters.app.command("merge")(merging.merge_command)
adapters.app.command("gc")(stored.gc_command)
app.add_typer(adapters.app, name="adapters")
runs.app.command("plan")(planning.plan_command)
runs.app.command("preview")(planning.preview_command)
runs.app.command("compare")(comparing.compare_command)
runs.app.command("sweep")(sweeps.command)
app.add_typer(runs.app, name="runs")
corpus.app.command("eval")(evaluating.eval_command)
app.add_typer(corpus.app, name="corpus")
app.add_typer(data.app, name="data")
judge.app.command("calibrate")(calibrating.calibrate_command)
judge.app.command("redteam")(redteam.redteam_command)
app.add_typer(judge.app, name="judge")
app.add_typer(loadtest.app, name="loadtest")
app.command("ask")(ask.ask)
app.command("grade")(grading.grade_command)
app.command("gate")(gate.gate_command)
app.command("up")(services.up)
app.command("down")(services.down)
app.command("doctor")(doctor.doctor)
app.command("operator")(operator.operator_command)


def main() -> None:
    """The entry point `tuneproof`."""
    with plain_errors(), tracing("tuneproof"):
        app()


if __name__ == "__main__":
    main()
