"""How two adapters differ: what they change in the base, module by module."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuneproof.adapters.loraconfig import rank_of, read_lora_config
from tuneproof.adapters.manifest import WEIGHTS_FILE
from tuneproof.adapters.tensors import read_header, read_values

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class WeightsDifference:
    """The products B·A, scaled, of two adapters."""

    equal: int
    """Modules that both change, and equally."""
    changed: int
    """Modules that both change, but differently."""
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    relative: float
    """Frobenius norm of the difference of all products, by that of the second adapter's; infinite
    when that one changes nothing."""


def weights_difference(first: Path, second: Path) -> WeightsDifference:
    """Compares two adapters in local folders. The products are not formed: the norms come from the
    small matrices' own products.

    Raises:
        InvalidInput: when one of them is not a sane adapter.
    """
    one, other = _factors(first), _factors(second)
    square, norm, equal, changed = 0.0, 0.0, 0, 0
    for module in one.keys() | other.keys():
        b1, a1 = one.get(module, _NOTHING)
        b2, a2 = other.get(module, _NOTHING)
        mine, theirs = _inner(b1, a1, b1, a1), _inner(b2, a2, b2, a2)
        both = module in one and module in other
        is_equal = both and b1.shape == b2.shape and bool((b1 == b2).all() and (a1 == a2).all())
        equal += is_equal
        changed += both and not is_equal
        if not is_equal:
            square += mine + theirs - (2 * _inner(b1, a1, b2, a2) if both else 0.0)
        norm += theirs
    relative = math.sqrt(max(square, 0.0) / norm) if norm else (math.inf if square else 0.0)
    return WeightsDifference(
        equal,
        changed,
        tuple(sorted(one.keys() - other.keys())),
        tuple(sorted(other.keys() - one.keys())),
        relative,
    )


_NOTHING: tuple[Matrix, Matrix] = (np.zeros((0, 0)), np.zeros((0, 0)))


def _inner(b1: Matrix, a1: Matrix, b2: Matrix, a2: Matrix) -> float:
    """⟨B1·A1, B2·A2⟩ = tr((B1ᵀB2)(A2A1ᵀ))."""
    if not b1.size or not b2.size:
        return 0.0
    return float(np.sum((b1.T @ b2) * (a1 @ a2.T)))


def _factors(folder: Path) -> dict[str, tuple[Matrix, Matrix]]:
    """B, scaled, and A of every module."""
    config, path = read_lora_config(folder), folder / WEIGHTS_FILE
    found: dict[str, dict[str, Matrix]] = {}
    for tensor in read_header(path):
        name, _, rest = tensor.name.partition(".lora_")
        values = read_values(path, tensor).astype(np.float64)
        found.setdefault(name.removeprefix("base_model.model."), {})[rest[:1]] = values
    pairs = {}
    for module, pair in found.items():
        if pair.keys() >= {"A", "B"}:
            scale = _scale(config, module)
            pairs[module] = (pair["B"] * scale, pair["A"])
    return pairs


def _scale(config: dict[str, object], module: str) -> float:
    """`alpha / r`, or with rsLoRA `alpha / √r`, as peft takes it."""
    rank = rank_of(config, module)
    alpha = config.get("lora_alpha", rank)
    patterns = config.get("alpha_pattern") or {}
    if isinstance(patterns, dict):
        alpha = next((value for key, value in patterns.items() if module.endswith(key)), alpha)
    by = math.sqrt(rank) if config.get("use_rslora") else rank
    return float(alpha) / by  # type: ignore[arg-type]
