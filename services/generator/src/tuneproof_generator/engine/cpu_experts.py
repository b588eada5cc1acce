"""Lets mixtures of experts be served with adapters on a CPU.

As soon as adapters are enabled, vLLM 0.32 takes Triton for the experts, on every platform
(`fused_moe/oracle/unquantized.py`); on a CPU the first request then ends the engine: "module
'triton.language' has no attribute 'float32'". Adapters for experts are not admitted, so the experts
are computed as they are without adapters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from vllm.model_executor.layers.fused_moe import unquantized_fused_moe_method


def keep_experts_plain() -> None:
    """Takes the CPU's own kernel for experts, in this process.

    Raises:
        AttributeError: when another vLLM has no such choice; then this has to be looked at again.
    """
    chosen = unquantized_fused_moe_method.select_unquantized_moe_backend
    unquantized_fused_moe_method.select_unquantized_moe_backend = _without_adapters(chosen)


def _without_adapters(choose: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(choose)
    def chosen(moe_config: Any) -> Any:
        moe_config.is_lora_enabled = False
        return choose(moe_config=moe_config)

    return chosen
