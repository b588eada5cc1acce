"""Computes adapters' parts of a prompt by whole requests, not token by token.

The CPU kernels of vLLM 0.32 (`torch_ops.bgmv_*`) copy an adapter's matrices once for each token of
a batch: of a prompt with 60 tokens and rank 256 that is seconds. Neighbouring tokens of a batch
mostly have one adapter, and share one product of matrices then.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu

_TOKENS_A_SEGMENT = 4
"""With fewer on average, as when every request adds one token, vLLM's own kernels are as fast."""
Kernel = Callable[..., None]


def share_products() -> None:
    """Replaces the CPU kernels of this process.

    Raises:
        AttributeError: when another vLLM lacks those kernels; then check whether this is needed.
    """
    for name, shared in (
        ("bgmv_shrink", _shrink),
        ("bgmv_expand", _expand),
        ("bgmv_expand_slice", _expand_slice),
    ):
        kernel = shared(getattr(lora_ops, name))
        # Prefill looks it up in the kernels' module, decoding in the one that imported it.
        setattr(lora_ops, name, kernel)
        setattr(punica_cpu, name, kernel)


def _segments(rows: int, indices: Any) -> list[tuple[int, int, int]] | None:
    """Adapter, first row and end of neighbouring tokens; None where they are too short to help."""
    if indices.shape[0] != rows or rows < _TOKENS_A_SEGMENT:
        return None
    adapters, counts = torch.unique_consecutive(indices, return_counts=True)
    if adapters.shape[0] * _TOKENS_A_SEGMENT > rows:
        return None
    found, start = [], 0
    for adapter, count in zip(adapters.tolist(), counts.tolist(), strict=True):
        found.append((adapter, start, start + count))
        start += count
    return found


def _products(
    inputs: Any, weights: Any, dtype: Any, segments: list[tuple[int, int, int]]
) -> Iterator[tuple[slice, Any]]:
    """Rows, and what their adapter makes of them; None for rows of the base, whose index is -1."""
    for adapter, start, end in segments:
        rows = slice(start, end)
        if adapter == -1:
            yield rows, None
            continue
        matrix = weights[adapter].to(dtype)
        matrix = matrix.squeeze(0) if matrix.dim() == 3 else matrix
        yield rows, inputs[rows].to(dtype) @ matrix.T


def _shrink(kernel: Kernel) -> Kernel:
    @functools.wraps(kernel)
    def shrink(inputs: Any, weights: Any, output: Any, indices: Any, scaling: float = 1.0) -> None:
        segments = _segments(inputs.shape[0], indices)
        if segments is None:
            kernel(inputs, weights, output, indices, scaling)
            return
        for rows, product in _products(inputs, weights, output.dtype, segments):
            if product is None:
                output[rows] = 0
            else:
                output[rows, : product.shape[1]] = scaling * product

    return shrink


def _expand(kernel: Kernel) -> Kernel:
    @functools.wraps(kernel)
    def expand(
        inputs: Any, weights: Any, output: Any, indices: Any, add_inputs: bool = True
    ) -> None:
        segments = _segments(inputs.shape[0], indices) if add_inputs else None
        if segments is None or output.shape[0] != inputs.shape[0]:
            kernel(inputs, weights, output, indices, add_inputs)
            return
        for rows, product in _products(inputs, weights, output.dtype, segments):
            if product is not None:
                # Adapter and model may pad the output differently.
                width = min(product.shape[1], output.shape[1])
                output[rows, :width] += product[:, :width]

    return expand


def _expand_slice(kernel: Kernel) -> Kernel:
    @functools.wraps(kernel)
    def expand(  # noqa: PLR0917 - vLLM's signature
        inputs: Any,
        weights: Any,
        output: Any,
        indices: Any,
        slice_offset: int,
        slice_size: int,
        add_inputs: bool = True,
    ) -> None:
        segments = _segments(inputs.shape[0], indices) if add_inputs else None
        if segments is None or output.shape[0] != inputs.shape[0]:
            kernel(inputs, weights, output, indices, slice_offset, slice_size, add_inputs)
            return
        for rows, product in _products(inputs, weights, output.dtype, segments):
            if product is not None:
                output[rows, slice_offset : slice_offset + slice_size] += product

    return expand
