"""Ids of runs for the shell's completion."""

from __future__ import annotations

import asyncio
from pathlib import Path

import typer

from tuneproof.cli.cluster.choosing import NAMESPACE, chosen, endpoints_of
from tuneproof.cli.options import STATE
from tuneproof.sdk import RunInfo, TrainerClient
from tuneproof.servicekit.errors import TuneproofError

_SECONDS = 2.0
"""A shell waits for its completions."""


def complete_run_ids(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Ids that begin with what was typed, each with its state; none where no trainer answers."""
    given, before = ctx.params, ctx.find_root().params
    chosen.context = before.get("context") or ""
    chosen.namespace = before.get("namespace") or NAMESPACE
    targets = {"trainer": given.get("trainer"), "token": given.get("token")}

    async def ask() -> list[RunInfo]:
        found = endpoints_of(Path(given.get("state") or STATE), targets, ["trainer"])
        async with TrainerClient.of(found) as client:
            return await client.list(timeout=_SECONDS)

    try:
        runs = asyncio.run(ask())
    except (TuneproofError, OSError):
        return []
    return [(run.id, run.state) for run in runs if run.id.startswith(incomplete)]
