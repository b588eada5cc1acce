"""The linear layers of a Llama-like model, and whether a model is a mixture of experts, from its
config.json."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

LLAMA_LIKE = frozenset({"llama", "mistral", "qwen2", "qwen3", "granite", "smollm3"})
"""Values of `model_type` whose layers have the names and shapes below."""
_EXPERTS = frozenset({"mixtral"})
"""Values of `model_type` with the same attention, and experts in place of the MLP: transformers 5
holds those as 3-D parameters, which are not linear layers."""
_MODULE = re.compile(r"(?:base_model\.model\.)?model\.layers\.(\d{1,6})\.(self_attn|mlp)\.(\w+)")
ATTENTION = ("k_proj", "o_proj", "q_proj", "v_proj")
"""Last names of attention's linear layers: what an adapter of a mixture of experts may change."""
_EXPERT_COUNTS = frozenset(
    {"num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"}
)
"""Keys by which transformers 5.19's configs count experts, each in ten models or more, or in DBRX,
Ernie 4.5 and Aria (`moe_num_experts`). A dense sister model may have the key too, with 0, 1 or null
(Granite hybrid, Jamba, Gemma 4)."""
_EXPERT_SWITCHES = ("is_moe", "enable_moe_block")
"""Keys that say `false` where experts are counted and not used (Doge, Gemma 4)."""


@dataclass(frozen=True)
class Architecture:
    """Layers and the shape of each kind of linear layer."""

    model_type: str
    layers: int
    shapes: dict[str, tuple[int, int]]
    """(values in, values out) by the module's last name, as q_proj."""

    def locate(self, module: str) -> tuple[int, str] | None:
        """Layer and kind of a module's full name; None when the architecture lacks it."""
        match = _MODULE.fullmatch(module)
        if not match:
            return None
        layer, block, kind = match.groups()
        if kind not in self.shapes or (kind in ATTENTION) != (block == "self_attn"):
            return None
        return int(layer), kind


def has_experts(config: dict[str, Any]) -> bool:
    """Whether a base's config, or a part of it (the text model of a multimodal one), describes a
    mixture of experts."""
    if any(config.get(switch) is False for switch in _EXPERT_SWITCHES):
        return False
    counts = [config[key] for key in _EXPERT_COUNTS & config.keys()]
    if any(_most(count) > 1 for count in counts):
        return True
    return any(has_experts(part) for part in config.values() if isinstance(part, dict))


def _most(count: Any) -> int:
    """The number of experts; some configs give one for each layer."""
    numbers = count if isinstance(count, list) else [count]
    return max((number for number in numbers if type(number) is int), default=0)


def architecture_of(config: dict[str, Any]) -> Architecture | None:
    """The architecture that a base's config describes; None for an unknown one."""
    model_type = config.get("model_type")
    if model_type not in LLAMA_LIKE | _EXPERTS:
        return None
    try:
        hidden = int(config["hidden_size"])
        heads = int(config["num_attention_heads"])
        inner = int(config["intermediate_size"])
        layers = int(config["num_hidden_layers"])
        kv_heads = int(config.get("num_key_value_heads") or heads)
        width = int(config.get("head_dim") or hidden // heads)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    shapes = {
        "q_proj": (hidden, heads * width),
        "k_proj": (hidden, kv_heads * width),
        "v_proj": (hidden, kv_heads * width),
        "o_proj": (heads * width, hidden),
    }
    if model_type not in _EXPERTS:
        shapes |= {
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }
    return Architecture(model_type=str(model_type), layers=layers, shapes=shapes)
