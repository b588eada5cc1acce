"""`tuneproof doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from tuneproof.cli import checkup
from tuneproof.cli.checkup import Finding, checked
from tuneproof.cli.cluster.choosing import in_cluster, reach
from tuneproof.cli.console import ExitCode, give, out, plain_errors
from tuneproof.cli.options import STATE, JsonOption, StateOption
from tuneproof.sdk import SERVICES, Endpoints
from tuneproof.servicekit.client import is_ready


def doctor(*, state: StateOption = STATE, as_json: JsonOption = False) -> None:
    """Examine Python, packages, ports, disk, memory, data, tools and services.

    Exits with 1 when something is missing that the services need to run here. With --context it
    examines a cluster instead: rights, secrets, volumes, pods that are not Ready and why, versions,
    calls, GPUs and policies.

    Examples:

      tuneproof doctor --json

      tuneproof doctor --context my-cluster
    """
    with plain_errors():
        if in_cluster():
            from tuneproof.cli.cluster import checkup as of_cluster  # noqa: PLC0415 - an extra

            findings = list(of_cluster.findings(reach()))
        else:
            findings = [*checkup.findings(state), *asyncio.run(_services(state))]
        value = {"findings": [asdict(finding) for finding in findings]}
        give(value, lambda: _show(findings), as_json=as_json)
    if any(finding.state == "missing" for finding in findings):
        raise SystemExit(ExitCode.FAILED)


async def _services(state: Path) -> list[Finding]:
    endpoints = Endpoints.discover(state)
    found = []
    for name in SERVICES:
        what, address = f"service {name}", getattr(endpoints, name)
        if not address:
            found.append(Finding(what, "note", "does not run here", "tuneproof up"))
        elif name not in endpoints.health:
            found.append(Finding(what, "ok", f"configured at {address}"))
        else:
            ready = await is_ready(endpoints.health[name])
            advice = f"see {state / 'services' / name}.log, then `tuneproof down` and `up`"
            detail = f"{address} is {'ready' if ready else 'not ready'}"
            found.append(checked(what, ready, detail, advice))
    return found


def _show(findings: list[Finding]) -> None:
    table = Table("", "what", "found", "how to get it", box=None)
    marks = {"ok": "ok", "note": "-", "warning": "!", "missing": "MISSING"}
    for finding in findings:
        table.add_row(marks[finding.state], finding.what, finding.detail, finding.advice)
    out.print(table)
