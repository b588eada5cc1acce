"""`tuneproof adapters alias | aliases | history | rollback | retire`."""

from __future__ import annotations

from typing import Annotated

import typer

from tuneproof.cli.adapters.commands import RefArgument
from tuneproof.cli.adapters.tables import json_of, show_aliases, target_of
from tuneproof.cli.asking import Asked
from tuneproof.cli.options import takes_options
from tuneproof.sdk import AliasInfo, GeneratorClient
from tuneproof.servicekit.errors import InvalidInput, Unavailable, WrongState

app = typer.Typer()

AliasArgument = Annotated[str, typer.Argument(help="The alias.")]
ReasonOption = Annotated[str, typer.Option(help="Why it moves, for the history.")]
ForceOption = Annotated[
    bool, typer.Option(help="Move it even if an adapter is not ready on every replica.")
]


@app.command("alias")
@takes_options
def alias_command(
    asked: Asked,
    name: AliasArgument,
    ref: RefArgument,
    *,
    expect: Annotated[
        str, typer.Option(help="The adapter it points to now; leave it out for a new alias.")
    ] = "",
    expect_version: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, help="The alias's version now; 0 for a new alias."),
    ] = None,
    canary: Annotated[
        str, typer.Option(help="REF:PERCENT: a second adapter and its share of the requests.")
    ] = "",
    reason: ReasonOption = "",
    force: ForceOption = False,
) -> None:
    """Point an alias to an adapter, or split it between two, if it points where you expect.

    Exits with 1 when it points elsewhere, or an adapter is not ready on every live replica.

    Examples:

      tuneproof adapters alias live short@sha256:... --reason "gate 2026-11"

      tuneproof adapters alias live short@sha256:... --expect short@sha256:...
      --canary full@sha256:...:5
    """
    canary_ref, percent = _canary(canary)
    try:
        alias = asked.run(
            lambda client: client.set_alias(
                *(name, ref),
                expected_ref=expect,
                expected_version=expect_version,
                force=force,
                reason=reason,
                canary_ref=canary_ref,
                canary_percent=percent,
            )
        )
    except WrongState as error:
        now = error.metadata.get("current_ref")
        if now and now != expect:
            error.message += f"; --expect {now} moves it from there"
        raise
    _show_set(asked, alias)


@app.command("aliases")
@takes_options
def aliases_command(asked: Asked) -> None:
    """List the aliases: where each points, since when, by whom, and why.

    Example:

      tuneproof adapters aliases
    """
    found = asked.run(lambda client: client.aliases())
    asked.give({"aliases": json_of(found)}, lambda: show_aliases(found))


@app.command("history")
@takes_options
def history_command(asked: Asked, alias: AliasArgument) -> None:
    """List the versions of an alias, the newest first.

    Example:

      tuneproof adapters history live
    """
    found = asked.run(lambda client: client.alias_versions(alias))
    asked.give({"versions": json_of(found)}, lambda: show_aliases(found))


@app.command("rollback")
@takes_options
def rollback_command(
    asked: Asked,
    alias: AliasArgument,
    *,
    to: Annotated[
        int | None,
        typer.Option(
            min=1, help="The version to return to; by default the last that pointed elsewhere."
        ),
    ] = None,
    reason: ReasonOption = "",
    force: ForceOption = False,
) -> None:
    """Point an alias where it pointed before, canary included. A second rollback undoes the first.

    Exits with 1 when it never pointed elsewhere, or the earlier adapter is not ready.

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
    asked.give(
        {"before": json_of(before), "now": json_of(now), "as_in": wanted.version},
        f"{alias} points to {target_of(now)} again, as in version {wanted.version}\n"
        f"it pointed to {target_of(before)} since version {before.version}"
        f"{before.reason and f' ({before.reason})'}; now it is version {now.version}",
    )


@app.command("retire")
@takes_options
def retire_command(
    asked: Asked,
    alias: AliasArgument,
    *,
    expect: Annotated[str, typer.Option(help="Retire it only if it points to this adapter.")] = "",
    reason: ReasonOption = "",
) -> None:
    """Let an alias point nowhere, so that its adapter can be removed. Its history stays.

    Requests for it get NOT_FOUND until somebody sets it again; `rollback` brings it back.

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

    _show_set(asked, asked.run(work))


async def _history(client: GeneratorClient, alias: str) -> list[AliasInfo]:
    """The versions of an alias, the newest first; at least one."""
    versions = await client.alias_versions(alias)
    if not versions:
        raise WrongState(f"no version of alias {alias} can be read; set it again")
    return versions


async def _set_back(
    client: GeneratorClient, before: AliasInfo, wanted: AliasInfo, reason: str, *, force: bool
) -> AliasInfo:
    """Sets the alias; where the answer is lost, looks whether the alias moved.

    Running the command once more would undo a rollback that succeeded.
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
    """The version to go back to; never one that retired the alias."""
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


def _show_set(asked: Asked, alias: AliasInfo) -> None:
    text = f"{alias.name} points to {target_of(alias)}, version {alias.version}"
    asked.give(json_of(alias), text)


def _canary(text: str) -> tuple[str, int]:
    """Reference and percent of `REF:PERCENT`; an empty text has neither."""
    if not text:
        return "", 0
    ref, _, percent = text.rpartition(":")
    if "@sha256:" in ref and percent.isascii() and percent.isdigit() and 0 < int(percent) < 100:
        return ref, int(percent)
    raise InvalidInput(
        f"--canary is {text!r}, not REF:PERCENT with 1 to 99 percent, as short@sha256:...:5"
    )
