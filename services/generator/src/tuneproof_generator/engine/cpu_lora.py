"""Keeps adapters away from the base model's answers on a CPU, and the engine alive.

In a batch, tokens of the base model carry the adapter index -1. The CPU kernels of vLLM 0.32
(`torch_ops.bgmv_shrink`) use it as a Python index, which is the last slot: a request for the base
model that shares a batch with one for an adapter is silently answered with whatever adapter lies
there (vllm-project/vllm, pull requests 48421 and 49656, open). Triton's kernels, on a GPU, skip -1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu


def protect_base() -> None:
    """Makes the CPU kernels of this process skip base tokens.

    Raises:
        AttributeError: when another vLLM lacks those kernels; then check whether this is needed.
    """
    protected = _without_base(lora_ops.bgmv_shrink)
    # The prefill kernels look it up in their module, the decode path in the one that imported it.
    lora_ops.bgmv_shrink = protected
    punica_cpu.bgmv_shrink = protected


def protect_prompt_scores() -> None:
    """Makes log-probabilities of prompts possible beside other requests.

    For them vLLM 0.32 computes the logits of a whole prompt, but adds the adapters' part of the
    output layer by the indices of the batch's requests (`PunicaWrapperCPU.add_lora_logits`). Where
    the numbers of the two differ, einsum raises, and the engine ends: any client could do that with
    `prompt_logprobs`. Nothing is added then. The trainer adapts no output layer; an adapter that
    does shows another effect than in training, and is not served.
    """
    add = punica_cpu.PunicaWrapperCPU.add_lora_logits

    @functools.wraps(add)
    def protected(self: Any, y: Any, x: Any, *others: Any, **options: Any) -> None:
        if x.view(-1, x.shape[-1]).shape[0] == self.sampler_indices.shape[0]:
            add(self, y, x, *others, **options)

    punica_cpu.PunicaWrapperCPU.add_lora_logits = protected


def _without_base(shrink: Callable[..., None]) -> Callable[..., None]:
    """The first half of the product with zeros for base tokens, so that the second adds nothing."""

    @functools.wraps(shrink)
    def protected(
        inputs: Any, weights: Any, output: Any, indices: Any, scaling: float = 1.0
    ) -> None:
        shrink(inputs, weights, output, indices, scaling)
        output.masked_fill_((indices == -1).unsqueeze(-1), 0)

    return protected
