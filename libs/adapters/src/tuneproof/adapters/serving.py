"""How many GPUs a generator takes, counted from the base's config.json alone.

On each of g GPUs, with values of 2 bytes (bfloat16), L layers, hidden size h, and key heads that
together have the width b:

weights       2 bytes each, split over the GPUs.
slots         s adapters of rank r: s r (in + out) values for each linear layer that adapters may
              change. vLLM 0.32 keeps them for the largest rank, whatever an adapter's own is, and
              splits a part of them; all are counted here.
context       A token's keys and values take 2 L b values, split over the GPUs.

What is left of a GPU's memory, times vLLM's share of it, holds contexts. Activations, CUDA graphs
and the allocator take from it too and are not counted, so `tokens` is an upper bound: vLLM's log
tells what there is ("GPU KV cache size").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tuneproof.adapters.memory import GIB, base_of
from tuneproof.adapters.shapes import ATTENTION

_VALUE = 2


@dataclass(frozen=True, slots=True)
class ServingMemory:
    """Bytes of a generator on each of its GPUs; see the module."""

    weights: int
    slots: int
    context: int
    """Of one token."""
    adapter: int
    """Of one adapter of the largest rank, in host memory, whatever the number of GPUs."""

    def tokens(self, gib: float, share: float = 0.9) -> int:
        """The most tokens of prompts and answers that fit at the same time; 0 if the model does
        not fit.

        Args:
            gib: memory of a GPU.
            share: the generator's `gpu_memory_utilization`.
        """
        return max(0, int((gib * GIB * share - self.weights - self.slots) // self.context))


def serving_memory(
    config: dict[str, Any], *, gpus: int = 1, slots: int = 4, rank: int = 16
) -> ServingMemory | None:
    """The memory that a generator takes.

    Args:
        config: the base's config.json.
        gpus: over which the model is split (`tensor_parallel`).
        slots: different adapters in one batch (`max_loras`).
        rank: the largest of an adapter (`max_lora_rank`).

    Returns:
        None for a base of an unknown architecture.
    """
    base = base_of(config)
    if base is None:
        return None
    layers, shapes = base.architecture.layers, base.architecture.shapes
    changed = [shapes[kind] for kind in (ATTENTION if base.experts else shapes)]
    weights = layers * sum(given * out for given, out in shapes.values()) + base.other_weights
    adapter = layers * rank * sum(given + out for given, out in changed) * _VALUE
    keys = shapes["k_proj"][1]
    return ServingMemory(
        weights=weights * _VALUE // gpus,
        slots=slots * adapter,
        context=2 * layers * keys * _VALUE // gpus,
        adapter=adapter,
    )
