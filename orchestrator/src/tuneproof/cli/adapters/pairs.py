"""`tuneproof adapters diff`: how two adapters differ, in origin and in what they do.

The functions import the registry: numpy is slow to load.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneproof.cli.adapters.stored import Stored
from tuneproof.cli.options import takes_options

if TYPE_CHECKING:
    from tuneproof.adapters import Fingerprint, Manifest

_TIMES = frozenset({"run_id", "load_seconds", "train_seconds", "peak_gpu_bytes", "threads"})
"""Facts that differ between equal trainings."""


@dataclass(frozen=True)
class _Side:
    """One adapter, with its files here."""

    name: str
    folder: Path
    manifest: Manifest
    details: Mapping[str, Any]
    fingerprint: Fingerprint | None


@takes_options
def diff_command(
    asked: Stored,
    first: Annotated[str, typer.Argument(help="`name@sha256:…` in the artifact store.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
) -> None:
    """Show how two stored adapters differ: base, configuration, training, weights, effect.

    Example:

      tuneproof adapters diff short@sha256:... short@sha256:...
    """
    with tempfile.TemporaryDirectory() as scratch:
        one, other = (_side(asked, text, Path(scratch)) for text in (first, second))
        value = _differences(one, other)
    lines = [f"first   {one.name}", f"second  {other.name}"]
    for part in ("base", "config", "hyperparameters", "provenance"):
        for name, (here, there) in value[part].items():
            lines.append(f"{part:<16} {name}: {_word(here)} -> {_word(there)}")
    weights = value["weights"]
    lines.append(
        f"{'weights':<16} {weights['equal']} modules equal, {weights['changed']} changed,"
        f" {len(weights['only_first'])} only in the first, {len(weights['only_second'])} only in"
        f" the second; their products differ by {100 * weights['relative']:.3g} %"
    )
    if (effect := value["effect"]) is not None:
        lines.append(
            f"{'effect':<16} {effect['first']:.4g} -> {effect['second']:.4g} nat a token over"
            f" {effect['precision']}; between the two {effect['difference']:.4g}"
        )
    asked.give(value, "\n".join(lines))


def _side(asked: Stored, text: str, scratch: Path) -> _Side:
    from tuneproof.adapters import AdapterRef, fingerprint_of  # noqa: PLC0415 - see above

    ref, registry = AdapterRef.parse(text), asked.registry
    details = registry.provenance(ref).details
    folder = registry.fetch(ref, scratch)
    return _Side(str(ref), folder, registry.manifest(ref), details, fingerprint_of(details))


def _differences(one: _Side, other: _Side) -> dict[str, Any]:
    from tuneproof.adapters.difference import weights_difference  # noqa: PLC0415 - see above

    facts = [
        {name: value for name, value in side.details.items() if name not in _APART}
        for side in (one, other)
    ]
    chosen = [_hyperparameters(side.details) for side in (one, other)]
    weights = asdict(weights_difference(one.folder, other.folder))
    return {
        "first": one.name,
        "second": other.name,
        "base": dict(_changes(one.manifest.base.to_json(), other.manifest.base.to_json())),
        "config": dict(_changes(one.manifest.config, other.manifest.config)),
        "hyperparameters": dict(_changes(*chosen)),
        "provenance": dict(_changes(*facts)),
        "weights": weights,
        "effect": _effect(one.fingerprint, other.fingerprint),
    }


_APART = _TIMES | {"hyperparameters", "fingerprint"}


def _effect(one: Fingerprint | None, other: Fingerprint | None) -> dict[str, Any] | None:
    """Both effects, and how far they are apart; None where the fingerprints do not compare."""
    from tuneproof.adapters.likeness import compare  # noqa: PLC0415 - see above

    if one is None or other is None or one.probes != other.probes:
        return None
    if one.nearest.precision != other.nearest.precision:
        return None
    apart = compare(other, one.nearest.base, one.nearest.adapted, one.nearest.precision)
    return {
        "precision": one.nearest.precision,
        "first": one.nearest.effect,
        "second": other.nearest.effect,
        "difference": apart.effect_difference,
    }


def _hyperparameters(details: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        found = json.loads(str(details.get("hyperparameters", "{}")))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _changes(
    one: Mapping[str, Any], other: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            yield name, (one.get(name), other.get(name))


def _word(value: Any) -> str:
    return "none" if value in (None, "") else str(value)
