"""`tuneproof doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from tuneproof.cli import checkup
from tuneproof.cli.checkup import Finding
from tuneproof.cli.console import ExitCode, out, plain_errors, print_json
from tuneproof.cli.options import STATE, JsonOption, StateOption
from tuneproof.sdk import SERVICES, Endpoints
from tuneproof.servicekit.client import is_ready


def doctor(
    *,
    state: StateOption = STATE,
    as_json: JsonOption = False,
) -> None:
    """Look at Python, packages, ports, disk, memory, data, tools and services.

    Ends with 1 when something is missing that running the services here needs.

    Example:

      tuneproof doctor --json
    """
    with plain_errors():
        findings = [*checkup.findings(state), *asyncio.run(_services(state))]
        if as_json:
            print_json({"findings": [asdict(finding) for finding in findings]})
        else:
            _show(findings)
    if any(finding.state == "missing" for finding in findings):
        raise SystemExit(ExitCode.FAILED)


async def _services(state: Path) -> list[Finding]:
    endpoints = Endpoints.discover(state)
    found = []
    for name in SERVICES:
        address = getattr(endpoints, name)
        if not address:
            found.append(Finding(f"service {name}", "note", "does not run here", "tuneproof up"))
        elif name not in endpoints.health:
            found.append(Finding(f"service {name}", "ok", f"said to be at {address}"))
        elif await is_ready(endpoints.health[name]):
            found.append(Finding(f"service {name}", "ok", f"ready at {address}"))
        else:
            advice = f"see {state / 'services' / name}.log, then `tuneproof down` and `up`"
            found.append(Finding(f"service {name}", "warning", f"{address} is not ready", advice))
    return found


def _show(findings: list[Finding]) -> None:
    table = Table("", "what", "found", "how to get it", box=None)
    marks = {"ok": "ok", "note": "-", "warning": "!", "missing": "MISSING"}
    for finding in findings:
        table.add_row(marks[finding.state], finding.what, finding.detail, finding.advice)
    out.print(table)
