"""Adapters that are written down, not trained: each says one word of its own, whatever it is asked.

An answer then tells which adapter gave it, and every token of it does, so that a request which is
served by another adapter, or by two of them in turn, cannot hide.

The last layer's MLP is steered. Its gate and its up projection get the same large multiple of
a random direction of the input in one hidden unit, and of the opposite direction in the next one:
silu(z) * z is about z squared in one of the two and nothing in the other, so their sum is large and
positive for every input. The down projection turns that sum into the direction in which the word's
own logit is the highest. All other pairs are zero products of the usual shape, so that such an
adapter costs the engine as much as a real one of its rank.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

_PREFIX = "base_model.model.model.layers"
_GAIN = 30.0
"""Far above what the gate and the up projection give by themselves."""
_STEER = 1000.0
"""Far above the down projection's own weights."""
_MARGIN = 0.25
"""A word is taken where the second highest logit is lower by this share."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Base:
    """What has to be known of a Llama-shaped model."""

    config: Mapping[str, Any]
    embeddings: Array
    """Words by width."""
    head: Array
    """Words by width."""
    norm: Array
    """Weights of the last norm, by width."""

    @classmethod
    def read(cls, folder: Path) -> Base:
        """Reads a model in one safetensors file."""
        weights = load_file(folder / "model.safetensors")
        embeddings = weights["model.embed_tokens.weight"].astype(np.float32)
        return cls(
            json.loads((folder / "config.json").read_text()),
            embeddings,
            weights.get("lm_head.weight", embeddings).astype(np.float32),
            weights["model.norm.weight"].astype(np.float32),
        )

    def steer(self, token: int) -> Array:
        """A direction of the residual stream in which a token's logit is the highest of all."""
        return (self.head[token] - self.head.mean(0)) / self.norm

    def can_say(self, token: int) -> bool:
        """Whether that logit is the highest by far."""
        logits = self.head @ (self.norm * self.steer(token))
        second, first = np.partition(logits, -2)[-2:]
        return bool(logits[token] == first and first - second > _MARGIN * first)


def markers(folder: Path, base: Base) -> dict[str, int]:
    """Numbers of one token that can be said, with their token ids."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    words = {piece.strip(): index for piece, index in vocabulary.items() if piece[0] == " "}
    return {
        word: index
        for word, index in sorted(words.items())
        if len(word) > 1 and word.isdigit() and base.can_say(index)
    }


def write_marker(folder: Path, base: Base, token: int, *, rank: int = 16, version: int = 0) -> Path:
    """Writes an adapter that says one token, as peft writes adapters.

    Args:
        version: gives the same word from other weights, so another digest.
    """
    config = base.config
    width, hidden, layers = (
        config[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    head = config.get("head_dim") or width // config["num_attention_heads"]
    queries, keys = (config[f"num_{kind}_heads"] * head for kind in ("attention", "key_value"))
    shapes = {
        "self_attn.q_proj": (width, queries),
        "self_attn.k_proj": (width, keys),
        "self_attn.v_proj": (width, keys),
        "self_attn.o_proj": (queries, width),
        "mlp.gate_proj": (width, hidden),
        "mlp.up_proj": (width, hidden),
        "mlp.down_proj": (hidden, width),
    }
    random = np.random.default_rng([token, version])
    tensors: dict[str, Array] = {}
    for layer in range(layers):
        for module, (inputs, outputs) in shapes.items():
            place = f"{_PREFIX}.{layer}.{module}"
            down = random.normal(0.0, inputs**-0.5, (rank, inputs)).astype(np.float32)
            tensors[f"{place}.lora_A.weight"] = down
            tensors[f"{place}.lora_B.weight"] = np.zeros((outputs, rank), np.float32)
    _steer(tensors, f"{_PREFIX}.{layers - 1}.mlp", base.steer(token), rank)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    adapter = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(module.split(".")[1] for module in shapes),
        "use_dora": False,
        "modules_to_save": None,
    }
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    return folder


def _steer(tensors: dict[str, Array], mlp: str, direction: Array, rank: int) -> None:
    up = tensors[f"{mlp}.up_proj.lora_B.weight"]
    for pair in range(rank):
        up[2 * pair, pair], up[2 * pair + 1, pair] = _GAIN, -_GAIN
    tensors[f"{mlp}.gate_proj.lora_A.weight"] = tensors[f"{mlp}.up_proj.lora_A.weight"].copy()
    tensors[f"{mlp}.gate_proj.lora_B.weight"] = up.copy()
    collect = np.zeros_like(tensors[f"{mlp}.down_proj.lora_A.weight"])
    collect[0, : 2 * rank] = 1.0
    tensors[f"{mlp}.down_proj.lora_A.weight"] = collect
    tensors[f"{mlp}.down_proj.lora_B.weight"][:, 0] = _STEER * direction / np.linalg.norm(direction)
