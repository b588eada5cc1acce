"""Lets mixtures of experts be served with adapters on a CPU.

With adapters enabled, vLLM 0.32 uses Triton for the experts on every platform
(`fused_moe/oracle/unquantized.py`); on a CPU the first request then ends the engine: "module
'triton.language' has no attribute 'float32'". Admission refuses adapters for experts, so the
experts are computed as without adapters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from vllm.model_executor.layers.fused_moe import unquantized_fused_moe_method


def keep_experts_plain() -> None:
    """Makes this process use the CPU's own kernel for experts.

    Raises:
        AttributeError: when another vLLM lacks that choice; then check whether this is needed.
    """
    chosen = unquantized_fused_moe_method.select_unquantized_moe_backend
    unquantized_fused_moe_method.select_unquantized_moe_backend = _without_adapters(chosen)


def _without_adapters(choose: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(choose)
    def chosen(moe_config: Any) -> Any:
        moe_config.is_lora_enabled = False
        return choose(moe_config=moe_config)

    return chosen
