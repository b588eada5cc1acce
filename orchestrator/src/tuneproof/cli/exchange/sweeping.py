"""`tuneproof study gc`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from tuneproof.cli.console import give, plain_errors
from tuneproof.cli.options import STATE, JsonOption, StateOption
from tuneproof.local import Supervisor
from tuneproof.servicekit.errors import WrongState
from tuneproof.study.design.specfile import load_spec
from tuneproof.study.opened import chain_of
from tuneproof.study.pruning import Sweep, referenced, remove, sweep_of
from tuneproof.study.state.lock import exclusive
from tuneproof.study.state.store import open_state


def gc_command(
    files: Annotated[
        list[Path], typer.Argument(help="The study files whose results stay; name all of them.")
    ],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it, only tell.")] = False,
    state: StateOption = STATE,
    as_json: JsonOption = False,
) -> None:
    """Find state that none of the given study files refers to, and remove it with --yes.

    What goes: results of other studies and of earlier versions of these, with their tuning data,
    training runs, adapters that no generator declares, and corpora of LanceDB. Reports and exports
    stay.

    Examples:

      tuneproof study gc studies/demo.yaml studies/bioasq.yaml

      tuneproof study gc studies/*.yaml --yes
    """
    with plain_errors():
        found = _sweep(files, state, yes=yes)
        value = {
            "removed": yes,
            "bytes": found.size,
            "unused": [
                {"kind": each.kind, "pieces": each.pieces, "bytes": each.size}
                for each in found.unused
            ],
            "studies": list(found.studies),
            "paths": [str(path) for path in found.paths],
        }
        give(value, "\n".join(_lines(found, yes=yes)), as_json=as_json)


def _sweep(files: list[Path], state: Path, *, yes: bool) -> Sweep:
    names = [load_spec(file).study for file in files]
    running = Supervisor(state).running()
    if yes and running:
        raise WrongState(
            f"services of {state} run ({', '.join(running)}) and may use what would go: end them"
            f" first with `tuneproof down --state {state}`"
        )
    with (
        open_state(state, write=False),  # before a lock makes the folder
        exclusive(state) if yes else nullcontext(),
        open_state(state, write=yes) as results,
    ):
        kept: set[str] = set()
        for file in files:
            kept |= referenced(chain_of(file, state, results))
        found = sweep_of(results, state, kept, names)
        if yes:
            remove(results, found)
    return found


def _lines(found: Sweep, *, yes: bool) -> list[str]:
    if not found.unused and not found.studies:
        return ["nothing to remove"]
    lines = [
        f"{each.kind:<16} {each.pieces:>9,} {_bytes(each.size):>10}"
        for each in sorted(found.unused, key=lambda each: -each.size)
    ]
    if found.studies:
        lines.append(f"studies          {', '.join(found.studies)}")
    what = "removed" if yes else "to remove, with --yes"
    return [*lines, f"{_bytes(found.size)} {what}"]


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
