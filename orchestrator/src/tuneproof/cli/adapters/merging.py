"""`tuneproof adapters merge`: an adapter and its base as one model.

The sum is made where torch is, by the trainer's package in a process of its own: this program
needs no GPU library.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tuneproof.cli.adapters.stored import Stored
from tuneproof.cli.console import say
from tuneproof.cli.options import takes_options
from tuneproof.servicekit.errors import Internal, InvalidInput

_PROGRAM = "tuneproof_trainer.merging"
_NEEDED = ("tuneproof_trainer", "torch", "transformers", "peft")


@takes_options
def merge_command(
    asked: Stored,
    ref: Annotated[str, typer.Argument(help="`name@sha256:…` in the artifact store.")],
    base: Annotated[Path, typer.Option(help="Folder of its base model.")],
    out: Annotated[Path, typer.Option(help="Folder for the merged model; must not exist.")],
    *,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"],
        typer.Option(help="Precision of the weights that are written."),
    ] = "bfloat16",
) -> None:
    """Write the base with the adapter in its weights, and print how far that moves the answers.

    Needs the trainer's package and torch on this machine. The base must be the one that the
    adapter was made for.

    Example:

      tuneproof adapters merge short@sha256:... --base models/base --out models/short
    """
    from tuneproof.adapters import AdapterRef, identify_base, verify  # noqa: PLC0415 - slow

    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise InvalidInput(
            f"merging needs {', '.join(missing)}, which this Python lacks: pip install"
            " tuneproof-trainer, or merge where the trainer runs"
        )
    adapter = AdapterRef.parse(ref)
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.registry.fetch(adapter, Path(scratch))
        verify(
            folder, base=identify_base(base), max_rank=sys.maxsize, expected=adapter
        ).raise_if_bad()
        found = _merge(folder, base, out, dtype)
    found["adapter"] = ref
    text = (
        f"{ref} merged into {out}, in {dtype}.\nOver fixed questions the adapter moves the"
        f" log-probabilities by {found['effect']:.4g} nat a token; merging moves them by"
        f" {found['mean_difference']:.3g} more (at most {found['max_difference']:.3g}), and keeps"
        f" the likeliest token at {100 * found['same_tokens']:.1f} % of the positions."
    )
    asked.give(found, text)


def _merge(folder: Path, base: Path, out: Path, dtype: str) -> dict[str, Any]:
    """Runs the program; its libraries' output goes to standard error."""
    command = [sys.executable, "-m", _PROGRAM, str(folder), str(base), str(out), dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = done.stdout.strip().rpartition("\n")[2]
    try:
        found: dict[str, Any] = json.loads(last)
    except ValueError:
        say(done.stderr[-4000:])
        raise Internal(f"{_PROGRAM} ended with {done.returncode}; its output is above") from None
    if "error" in found:
        raise InvalidInput(str(found["error"]))
    return found
