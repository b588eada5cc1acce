"""`tuneproof adapters alias | aliases | history | rollback | retire`."""

from __future__ import annotations

from typing import Annotated

import typer

from tuneproof.cli.adapters.commands import RefArgument
from tuneproof.cli.adapters.tables import json_of, show_aliases, target_of
from tuneproof.cli.asking import Asked
from tuneproof.cli.console import out, print_json
from tuneproof.cli.options import takes_options
from tuneproof.sdk import AliasInfo, GeneratorClient
from tuneproof.servicekit.errors import InvalidInput, Unavailable, WrongState

app = typer.Typer()

AliasArgument = Annotated[str, typer.Argument(help="The alias.")]
ReasonOption = Annotated[str, typer.Option(help="Why, as the digest of a gate's report.")]
ForceOption = Annotated[bool, typer.Option(help="Even if an adapter is not ready everywhere.")]


@app.command("alias")
@takes_options
def alias_command(
    asked: Asked,
    name: AliasArgument,
    ref: RefArgument,
    *,
    expect: Annotated[
        str, typer.Option(help="Where it points now; without it the alias must be new.")
    ] = "",
    expect_version: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, help="Its newest version now; 0: none.")
    ] = None,
    canary: Annotated[
        str, typer.Option(help="REF:PERCENT: a second adapter, and its share of the requests.")
    ] = "",
    reason: ReasonOption = "",
    force: ForceOption = False,
) -> None:
    """Point an alias to an adapter, or in parts to two, if it points where you expect.

    Ends with 1 when it points elsewhere, or an adapter is not ready on every live replica.

    Examples:

      tuneproof adapters alias live short@sha256:... --reason "gate 2026-11"

      tuneproof adapters alias live short@sha256:... --expect short@sha256:...
      --canary full@sha256:...:5
    """
    canary_ref, percent = _canary(canary)

    async def work(client: GeneratorClient) -> AliasInfo:
        return await client.set_alias(
            *(name, ref),
            expected_ref=expect,
            expected_version=expect_version,
            force=force,
            reason=reason,
            canary_ref=canary_ref,
            canary_percent=percent,
        )

    try:
        alias = asked.run(work)
    except WrongState as error:
        now = error.metadata.get("current_ref")
        if now and now != expect:
            error.message += f"; --expect {now} moves it from there"
        raise
    _show_set(alias, as_json=asked.as_json)


@app.command("aliases")
@takes_options
def aliases_command(asked: Asked) -> None:
    """List the aliases: where each points, since when, by whom, and why.

    Example:

      tuneproof adapters aliases
    """
    found = asked.run(lambda client: client.aliases())
    if asked.as_json:
        print_json({"aliases": json_of(found)})
    else:
        show_aliases(found, out)


@app.command("history")
@takes_options
def history_command(asked: Asked, alias: AliasArgument) -> None:
    """List what an alias was set to, the newest first.

    Example:

      tuneproof adapters history live
    """
    found = asked.run(lambda client: client.alias_versions(alias))
    if asked.as_json:
        print_json({"versions": json_of(found)})
    else:
        show_aliases(found, out)


@app.command("rollback")
@takes_options
def rollback_command(
    asked: Asked,
    alias: AliasArgument,
    *,
    to: Annotated[
        int | None, typer.Option(min=1, help="This version, not the last that pointed elsewhere.")
    ] = None,
    reason: ReasonOption = "",
    force: ForceOption = False,
) -> None:
    """Point an alias where it pointed before, canary included. A second rollback undoes the first.

    Ends with 1 when it never pointed elsewhere, or the adapter from before is not ready.

    Examples:

      tuneproof adapters rollback live --reason "answers too short"

      tuneproof adapters rollback live --to 3
    """

    async def work(client: GeneratorClient) -> tuple[AliasInfo, AliasInfo, AliasInfo]:
        versions = await _history(client, alias)
        before, wanted = versions[0], _version(versions, to)
        why = reason or f"rollback to version {wanted.version}"
        now = await _set_back(client, before, wanted, why, force=force)
        return before, wanted, now

    before, wanted, now = asked.run(work)
    if asked.as_json:
        print_json({"before": json_of(before), "now": json_of(now), "as_in": wanted.version})
        return
    out.print(
        f"{alias} points to {target_of(now)} again, as in version {wanted.version}\n"
        f"it pointed to {target_of(before)} since version {before.version}"
        f"{before.reason and f' ({before.reason})'}; now it is version {now.version}",
        markup=False,
    )


@app.command("retire")
@takes_options
def retire_command(
    asked: Asked,
    alias: AliasArgument,
    *,
    expect: Annotated[
        str, typer.Option(help="Only if it points there; without it, wherever it points.")
    ] = "",
    reason: ReasonOption = "",
) -> None:
    """Let an alias point nowhere, so that what it pointed to can be removed. Its history stays.

    Requests for it are NOT_FOUND until it is set again; `rollback` brings it back.

    Example:

      tuneproof adapters retire trial --reason "the trial is over"
    """

    async def work(client: GeneratorClient) -> AliasInfo:
        last = None if expect else (await _history(client, alias))[0]
        now = last.ref if last else expect
        if not now:
            raise WrongState(f"alias {alias} points nowhere already")
        return await client.set_alias(
            *(alias, ""),
            expected_ref=now,
            expected_version=last.version if last else None,
            force=True,
            reason=reason,
        )

    _show_set(asked.run(work), as_json=asked.as_json)


async def _history(client: GeneratorClient, alias: str) -> list[AliasInfo]:
    """What an alias was set to, the newest first; at least one."""
    versions = await client.alias_versions(alias)
    if not versions:
        raise WrongState(f"none of the versions of alias {alias} can be read; set it anew")
    return versions


async def _set_back(
    client: GeneratorClient, before: AliasInfo, wanted: AliasInfo, reason: str, *, force: bool
) -> AliasInfo:
    """Sets the alias; where the answer is lost, looks whether it was done.

    To give the command once more would undo a rollback that was done.
    """
    try:
        return await client.set_alias(
            *(before.name, wanted.ref),
            expected_ref=before.ref,
            expected_version=before.version,
            force=force,
            reason=reason,
            canary_ref=wanted.canary_ref,
            canary_percent=wanted.canary_percent,
        )
    except Unavailable:
        now = (await _history(client, before.name))[0]
        if now.version != before.version + 1 or now.target != wanted.target:
            raise
        return now


def _version(versions: list[AliasInfo], number: int | None) -> AliasInfo:
    """The version to go back to; none of those that retired the alias."""
    now = versions[0]
    earlier = [one for one in versions[1:] if one.ref]
    for one in earlier:
        if one.version == number or (number is None and one.target != now.target):
            return one
    if number is None:
        raise WrongState(f"alias {now.name} has never pointed elsewhere than to {target_of(now)}")
    known = ", ".join(str(one.version) for one in earlier[:10]) or "none"
    raise InvalidInput(
        f"alias {now.name} has no earlier version {number} to go back to; the last ones are:"
        f" {known}"
    )


def _show_set(alias: AliasInfo, *, as_json: bool) -> None:
    if as_json:
        print_json(json_of(alias))
    else:
        out.print(
            f"{alias.name} points to {target_of(alias)}, version {alias.version}", markup=False
        )


def _canary(text: str) -> tuple[str, int]:
    """Reference and percent of `REF:PERCENT`; of no text, none."""
    if not text:
        return "", 0
    ref, _, percent = text.rpartition(":")
    if "@sha256:" in ref and percent.isascii() and percent.isdigit() and 0 < int(percent) < 100:
        return ref, int(percent)
    raise InvalidInput(
        f"--canary is {text!r}, not REF:PERCENT with 1 to 99 percent, as short@sha256:...:5"
    )
