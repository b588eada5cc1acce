"""What an artifact store holds: its adapters, listed, shown, and cleared of what nothing uses.

The functions import the registry: numpy is slow to load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from tuneproof.cli.adapters.tables import print_wide
from tuneproof.cli.console import give
from tuneproof.cli.options import STATE, JsonOption, StateOption, takes_options
from tuneproof.servicekit.errors import InvalidInput, TuneproofError

if TYPE_CHECKING:
    from tuneproof.adapters import AdapterRef, Registry

STORE_HELP = "URL of an artifact store: a folder, or s3://bucket/prefix."


@dataclass(frozen=True)
class Stored:
    """Of commands that read an artifact store; each field is an option of the command."""

    artifacts: Annotated[
        str, typer.Option(help=f"{STORE_HELP} By default the one of the state folder.")
    ] = ""
    state: StateOption = STATE
    as_json: JsonOption = False

    @property
    def url(self) -> str:
        """The store's URL."""
        return self.artifacts or str(self.state / "artifacts")

    @property
    def registry(self) -> Registry:
        """The adapters in it."""
        from tuneproof.adapters import Registry  # noqa: PLC0415 - see above

        return Registry(self.url)

    def give(self, value: Any, shown: str) -> None:
        """Prints the result as `console.give` does."""
        give(value, shown, as_json=self.as_json)


def list_stored(url: str, *, as_json: bool) -> None:
    """Prints one line for each adapter of a store."""
    from tuneproof.adapters import Registry  # noqa: PLC0415 - see above

    registry = Registry(url)
    rows = [_row(registry, ref) for ref in registry.list()]
    widest = max((len(row["ref"]) for row in rows), default=0)
    whole = Column("adapter", min_width=widest)  # In one piece, so that it can be copied.
    table = Table(whole, "base", "rank", "MiB", "trained in", "steps", "loss", box=None)
    for row in rows:
        table.add_row(
            row["ref"],
            row["base_model"],
            str(row["rank"] or ""),
            f"{row['size_bytes'] / 2**20:.1f}",
            row["trained_precision"],
            row["steps"],
            row["final_loss"],
        )
    give({"artifacts": url, "adapters": rows}, lambda: print_wide(table), as_json=as_json)


def show_stored(url: str, text: str, *, as_json: bool) -> None:
    """Prints what the store knows of one adapter: what it is, and where it comes from."""
    from tuneproof.adapters import AdapterRef, Registry, fingerprint_of  # noqa: PLC0415

    registry, ref = Registry(url), AdapterRef.parse(text)
    manifest, details = registry.manifest(ref), dict(registry.provenance(ref).details)
    found = fingerprint_of(details)
    details.pop("fingerprint", None)
    readings = found.readings if found else ()
    value = {
        **_row(registry, ref),
        "base": manifest.base.to_json(),
        "config": manifest.config,
        "tensors": len(manifest.tensors),
        "effects": {each.precision: each.effect for each in readings},
        "provenance": details,
    }
    table = Table(box=None, show_header=False)
    effects = [f"{each.effect:.4g} nat a token over {each.precision}" for each in readings]
    facts = {
        "adapter": str(ref),
        "trained in": value["trained_precision"] or "not told",
        "fingerprint": "; ".join(effects) or "none",
        "tensors": f"{value['tensors']}, {value['size_bytes']} bytes",
        **{f"base {name}": digest for name, digest in manifest.base.to_json().items()},
        **{f"config {name}": str(each) for name, each in sorted(manifest.config.items())},
        **{name: str(each) for name, each in sorted(details.items())},
    }
    for name, each in facts.items():
        table.add_row(name, each)
    give(value, lambda: print_wide(table), as_json=as_json)


@takes_options
def gc_command(
    asked: Stored,
    *,
    keep: Annotated[
        list[str] | None, typer.Option(help="Reference of an adapter that stays; repeatable.")
    ] = None,
    name: Annotated[str, typer.Option(help="Only adapters of this name.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it, only tell.")] = False,
) -> None:
    """Find stored adapters that nothing refers to, and remove them with --yes.

    An adapter stays when a pool declares it, an alias points or pointed to it, a run made it whose
    record is in the store, or a study of the state folder trained it (`tuneproof study gc` frees
    those). What lacks a manifest stays too: a commit may be under way.

    Examples:

      tuneproof adapters gc --artifacts s3://models/tuneproof

      tuneproof adapters gc --name short --keep short@sha256:... --yes
    """
    from tuneproof.adapters import AdapterRef  # noqa: PLC0415 - see above

    registry = asked.registry
    kept = {AdapterRef.parse(text) for text in keep or ()}
    stored = registry.list(name or None)
    if unknown := sorted(kept - set(registry.list())):
        raise InvalidInput(f"--keep names {unknown[0]}, which {asked.url} does not hold")
    mentioned = _mentioned(asked)
    free = [ref for ref in stored if ref not in kept and ref.hex not in mentioned]
    sizes = {str(ref): registry.size(ref) for ref in free}
    if yes:
        for ref in free:
            registry.remove(ref)
    done = "removed" if yes else "to remove, with --yes"
    lines = [f"{ref}  {size / 2**20:.1f} MiB" for ref, size in sizes.items()]
    lines.append(f"{len(free)} of {len(stored)} adapters {done}, {sum(sizes.values())} bytes")
    asked.give({"removed": yes, "adapters": sizes, "stored": len(stored)}, "\n".join(lines))


def _mentioned(asked: Stored) -> str:
    """The text of every small object that may name an adapter."""
    from tuneproof.adapters import open_storage  # noqa: PLC0415 - see above

    storage = open_storage(asked.url)
    texts: list[str] = []

    def walk(folder: str) -> None:
        for each in storage.names(folder):
            path = f"{folder}/{each}"
            if (size := storage.size(path)) is None:
                walk(path)
            elif size <= _LARGEST and each.endswith(".json"):
                texts.append(storage.read(path).decode("utf-8", "replace"))

    for root in ("pools", "runs"):
        walk(root)
    return "\n".join([*texts, *_of_studies(asked.state)])


_LARGEST = 1 << 20
"""Bytes of an object that is read for references: declarations, aliases and results are small."""


def _of_studies(state: Path) -> Iterator[str]:
    """The adapters that the studies of a state folder have trained."""
    from tuneproof.study.state.store import open_state  # noqa: PLC0415 - slow

    try:
        with open_state(state, write=False) as results:
            yield from (str(each) for each in results.trainings())
    except TuneproofError:
        return  # Without studies.


def _row(registry: Registry, ref: AdapterRef) -> dict[str, Any]:
    """What a list tells of an adapter."""
    details: Mapping[str, Any] = registry.provenance(ref).details
    return {
        "ref": str(ref),
        "base_model": str(details.get("base_model", "")),
        "rank": registry.manifest(ref).config.get("r", 0),
        "size_bytes": registry.size(ref),
        "trained_precision": str(details.get("base_precision", "")),
        "steps": str(details.get("steps", "")),
        "final_loss": str(details.get("final_loss", "")),
    }
