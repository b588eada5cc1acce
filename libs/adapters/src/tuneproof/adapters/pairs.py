"""The pairs of LoRA matrices: complete, of one rank, and of the shapes the base has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tuneproof.adapters.loraconfig import rank_of
from tuneproof.adapters.report import Defect
from tuneproof.adapters.shapes import Architecture
from tuneproof.adapters.tensors import Tensor

_NAME = re.compile(r"(?:base_model\.model\.)(.{1,400})\.lora_([AB])\.weight")


def check_pairs(
    tensors: tuple[Tensor, ...],
    config: dict[str, Any],
    architecture: Architecture | None,
    max_rank: int,
) -> Iterator[Defect]:
    """What is wrong with an adapter's tensors as pairs A (rank, in) and B (out, rank).

    Args:
        config: the LoRA configuration, one that `loraconfig.unsupported` found nothing in.
        architecture: None compares the pairs with each other only.
    """
    pairs: dict[str, dict[str, Tensor]] = {}
    for tensor in tensors:
        match = _NAME.fullmatch(tensor.name)
        if not match:
            yield Defect(
                "module",
                tensor.name,
                f"tensor {tensor.name} is not a LoRA matrix of a linear layer; remove it",
            )
            continue
        pairs.setdefault(match[1], {})[match[2]] = tensor
    for module, pair in sorted(pairs.items()):
        if set(pair) != {"A", "B"}:
            missing = "B" if "A" in pair else "A"
            yield Defect("pair", module, f"{module} lacks lora_{missing}")
            continue
        yield from _check_rank(module, pair, rank_of(config, module), max_rank)
        if architecture is not None:
            yield from _check_place(module, pair, architecture)
    yield from _check_targets(config, pairs)


def all_products_are_zero(tensors: tuple[Tensor, ...], zeros: frozenset[str]) -> bool:
    """Whether of every pair one matrix holds only zeros, so that the adapter changes nothing.

    Args:
        zeros: names of the tensors that hold only zeros.
    """
    pairs: dict[str, bool] = {}
    for tensor in tensors:
        match = _NAME.fullmatch(tensor.name)
        module = match[1] if match else tensor.name
        pairs[module] = pairs.get(module, False) or tensor.name in zeros
    return all(pairs.values())


def _check_rank(module: str, pair: dict[str, Tensor], rank: int, max_rank: int) -> Iterator[Defect]:
    a, b = pair["A"].shape, pair["B"].shape
    if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
        yield Defect(
            "shape", module, f"{module} has lora_A {list(a)} and lora_B {list(b)}: no pair"
        )
    elif a[0] != rank:
        yield Defect("rank", module, f"{module} has rank {a[0]}; adapter_config.json says {rank}")
    elif rank > max_rank:
        yield Defect(
            "rank",
            module,
            f"{module} has rank {rank}, above the {max_rank} that the engine was started for",
        )


def _check_place(
    module: str, pair: dict[str, Tensor], architecture: Architecture
) -> Iterator[Defect]:
    place = architecture.locate(module)
    if place is None:
        yield Defect(
            "module", module, f"{module} is not a linear layer of a {architecture.model_type} model"
        )
        return
    layer, kind = place
    if layer >= architecture.layers:
        yield Defect(
            "layer", module, f"{module} is in layer {layer}; the base has {architecture.layers}"
        )
    wide, high = architecture.shapes[kind]
    a, b = pair["A"].shape, pair["B"].shape
    if len(a) == 2 and len(b) == 2 and (a[1], b[0]) != (wide, high):
        yield Defect(
            "shape",
            module,
            f"{module} takes {a[1]} values and gives {b[0]}; the base's takes {wide} and gives "
            f"{high}",
        )


def _check_targets(config: dict[str, Any], pairs: dict[str, dict[str, Tensor]]) -> Iterator[Defect]:
    targets = config.get("target_modules")
    if not isinstance(targets, list):
        return  # A pattern; the modules themselves were checked.
    for target in targets:
        if not any(module == target or module.endswith(f".{target}") for module in pairs):
            yield Defect(
                "module", str(target), f"target module {target} has no tensor in the weights"
            )
    for module in sorted(pairs):
        if not any(module == target or module.endswith(f".{target}") for target in targets):
            yield Defect(
                "module",
                module,
                f"{module} has tensors, but adapter_config.json does not target it",
            )
