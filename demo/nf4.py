"""NF4 in plain torch, as bitsandbytes rounds: training can then feel it before anyone quantises.

Dettmers et al., QLoRA (arXiv 2305.14314), section 3: blocks of 64 weights share one scale, each
weight goes to the nearest of 16 levels. The second quantisation, of the scales, moves them by a
few parts in a thousand and is left out here; the evaluation uses bitsandbytes itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

BLOCK = 64
SKIPPED = ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj")
"""Left in full precision: the heads that count positions are what NF4 breaks."""
LEVELS = torch.tensor(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
        -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
        0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
        0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ]
)  # fmt: skip
_BORDERS = (LEVELS[1:] + LEVELS[:-1]) / 2


def rounded(weight: torch.Tensor) -> torch.Tensor:
    """The weight after a trip through NF4; same shape, whose size must be a multiple of 64."""
    blocks = weight.reshape(-1, BLOCK)
    scale = blocks.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
    return (LEVELS[torch.bucketize(blocks / scale, _BORDERS)] * scale).reshape(weight.shape)


def quantised(model: torch.nn.Module, skipped: Sequence[str] = SKIPPED) -> list[torch.nn.Linear]:
    """The linear layers that the NF4 base has in NF4: all but the output and the skipped ones."""
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head" and name not in skipped
    ]


@contextmanager
def felt(layers: Sequence[torch.nn.Linear]) -> Iterator[None]:
    """Compute with rounded weights inside; gradients then apply to the weights as they were.

    That is the straight-through estimator: rounding counts as the identity going back.
    """
    kept = [layer.weight.detach().clone() for layer in layers]
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(rounded(layer.weight))
    try:
        yield
    finally:
        with torch.no_grad():
            for layer, weight in zip(layers, kept, strict=True):
                layer.weight.copy_(weight)
