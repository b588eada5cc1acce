"""Adapters and aliases on the terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from rich.table import Table

from tuneproof.cli.console import out
from tuneproof.sdk import AdapterInfo, AliasInfo, PoolInfo
from tuneproof.sdk.readiness import states_of

_WIDTH = 1000
_ANY: TypeAdapter[Any] = TypeAdapter(Any)


def json_of(value: object) -> Any:
    """A value for JSON: times in ISO 8601; an adapter also says whether it is ready."""
    plain = _ANY.dump_python(value, mode="json")
    return {**plain, "ready": value.ready} if isinstance(value, AdapterInfo) else plain


def show_adapters(adapters: Sequence[AdapterInfo], pool: PoolInfo) -> None:
    """Prints one line each, and how many of the places are taken."""
    table = Table("adapter", "state", "rank", "MiB", "aliases", "replicas", "reason", box=None)
    for one in adapters:
        table.add_row(
            one.ref,
            states_of(one) + (" (required)" if one.required else ""),
            str(one.rank or ""),
            f"{one.size_bytes / 2**20:.1f}" if one.size_bytes else "",
            ", ".join(one.aliases),
            str(len(one.replicas)),
            one.reason,
        )
    if adapters:
        print_wide(table)
    replicas = ", ".join(pool.live_replicas or (pool.replica,))
    places = f"{len(adapters)} of {pool.max_cpu_loras} adapters"
    out.print(f"{pool.base_model}: {places}; replicas: {replicas}", markup=False)


def show_adapter(one: AdapterInfo, served: str) -> None:
    """Prints all that is known of it.

    Args:
        served: the engine's precision.
    """
    table = Table(box=None, show_header=False)
    last_used = _time(one.last_used_time) or "never"
    facts = {
        "adapter": one.ref,
        "state": f"{one.state}: {one.reason}" if one.reason else one.state,
        "required": "yes" if one.required else "no",
        "rank": str(one.rank or "not known yet"),
        "size": f"{one.size_bytes} bytes",
        "aliases": ", ".join(one.aliases) or "none",
        "requests": f"{one.running_requests} running; last ended: {last_used}",
        "weights in": one.residency or "not known",
        "trained in": one.trained_precision or "not told",
        "served in": served,
        "fingerprint": one.fingerprint or "not compared yet",
        "stages": times_of(one.stage_seconds) or "none yet",
    }
    for name, value in facts.items():
        table.add_row(name, value)
    for name, replica in one.replicas.items():
        table.add_row(f"on {name}", " ".join(filter(None, (replica.state, replica.reason))))
    for change in one.transitions:
        table.add_row(_time(change.time), " ".join(filter(None, (change.state, change.reason))))
    print_wide(table)


def show_aliases(aliases: Iterable[AliasInfo]) -> None:
    """Prints one line each."""
    table = Table("alias", "version", "points to", "set", "by", "reason", box=None)
    for one in aliases:
        table.add_row(
            *(one.name, str(one.version), target_of(one).replace(", ", "\n")),
            *(_time(one.set_time), one.set_by, one.reason),
        )
    print_wide(table)


def target_of(alias: AliasInfo) -> str:
    """Where it points."""
    if not alias.canary_ref:
        return alias.ref or "nothing"
    return f"{alias.ref}, {alias.canary_percent} % to {alias.canary_ref}"


def times_of(stage_seconds: Mapping[str, float]) -> str:
    """Stage by stage."""
    return ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in stage_seconds.items())


def summary_of(adapter: AdapterInfo) -> str:
    """An adapter's states, reason and stage times."""
    parts = (f"{states_of(adapter):<9}", adapter.reason, times_of(adapter.stage_seconds))
    return "  ".join(filter(None, parts)).rstrip()


def print_wide(table: Table) -> None:
    """Prints it in its full width, so that a reference stays in one piece and can be copied."""
    out.print(table, markup=False, width=_WIDTH, crop=False)


def _time(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""
