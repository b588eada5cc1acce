"""`tuneproof gate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneproof.cli.asking import Asked
from tuneproof.cli.console import ExitCode, say
from tuneproof.cli.options import takes_options
from tuneproof.cli.study import DataOption
from tuneproof.sdk import AliasInfo, GeneratorClient
from tuneproof.servicekit.digests import sha256_of_bytes
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.files import write_atomically
from tuneproof.study.opened import Study

if TYPE_CHECKING:
    from tuneproof.gate import Decision


@takes_options
def gate_command(
    asked: Asked,
    study: Annotated[
        Path, typer.Argument(help="The study file, or what `study export --format json` wrote.")
    ],
    policy: Annotated[Path, typer.Argument(help="What an adapter must show (YAML).")],
    *,
    cell: Annotated[
        list[str] | None,
        typer.Option(help="The tuned cell; of several the best that passes is chosen."),
    ] = None,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out", help="The gate's report; by default <state>/reports/<study>.gate.json."
        ),
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the checks as JUnit XML.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write a comment for a pull request.")
    ] = None,
    alias: Annotated[str, typer.Option(help="The alias that --promote and --emit are for.")] = "",
    promote: Annotated[
        bool, typer.Option(help="Point the alias to the adapter, only if it passes.")
    ] = False,
    emit: Annotated[
        Path | None,
        typer.Option(help="Write InferenceModelRewrite objects of llm-d, only if it passes."),
    ] = None,
    pool: Annotated[str, typer.Option(help="With --emit: the InferencePool.")] = "",
    current: Annotated[
        str, typer.Option(help="With --emit: the adapter that keeps nine tenths at first.")
    ] = "",
    data: DataOption = None,
) -> None:
    """Decide by a policy whether an adapter may go to production.

    Exits with 1 when none passes; then no alias moves, and no route is written. The reason of a
    moved alias names the digest of the gate's report.

    Examples:

      tuneproof gate studies/ours.yaml gate.yaml --cell full-1000-s1 --junit gate.xml

      tuneproof gate studies/ours.yaml gate.yaml --alias live --promote

      tuneproof gate studies/ours.yaml gate.yaml --alias live --emit route.yaml --pool readers
    """
    from tuneproof import gate  # noqa: PLC0415 - scipy takes long to load

    if (promote or emit) and not alias:
        raise InvalidInput("--promote and --emit need --alias NAME", field="alias")
    if emit and not pool:
        raise InvalidInput("--emit needs --pool, the name of the InferencePool", field="pool")
    rules = gate.load_policy(policy)
    read = study.suffix == ".json"
    found = Study.read(study) if read else Study.open(study, asked.state, data)
    results = found.results
    cells = cell or [one.name for one in results.compared if one.tuned]
    if not cell and len(cells) != 1:
        raise InvalidInput(
            f"{study} has {len(cells)} tuned cells: name one with --cell, or several to choose"
            f" among them: {', '.join(cells)}",
            field="cell",
        )
    decisions = gate.decide_all(results, rules, cells, complete=found.complete)
    report = gate.report_of(results, rules, decisions)
    content = (json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode()
    path = out_file or asked.state / "reports" / f"{results.name}.gate.json"
    write_atomically(path, content)
    if junit:
        write_atomically(junit, gate.junit(results.name, decisions).encode())
    comment = gate.markdown(results.name, decisions)
    if markdown:
        write_atomically(markdown, comment.encode())
    chosen, digest = gate.choose(decisions), sha256_of_bytes(content)
    asked.give({**report, "report": str(path), "digest": digest}, comment)
    if chosen is None:
        raise SystemExit(ExitCode.FAILED)
    if emit:
        routes = gate.rewrite(alias, chosen, pool=pool, current=current)
        write_atomically(emit, routes.encode())
    if promote:
        moved = _promoted(asked, alias, chosen, f"gate of {results.name} passed, report {digest}")
        say(f"{moved.name} points to {moved.ref}, version {moved.version}: {moved.reason}")


def _promoted(asked: Asked, alias: str, chosen: Decision, reason: str) -> AliasInfo:
    async def work(client: GeneratorClient) -> AliasInfo:
        now = {one.name: one for one in await client.aliases()}.get(alias)
        return await client.set_alias(
            alias,
            chosen.adapter,
            expected_ref=now.ref if now else "",
            expected_version=now.version if now else None,
            reason=reason,
        )

    return asked.run(work)
