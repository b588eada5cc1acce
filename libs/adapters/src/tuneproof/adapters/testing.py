"""A small base and a small adapter in a folder, for tests; no real model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

BASE_CONFIG: Mapping[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "vocab_size": 32,
}
LORA_CONFIG: Mapping[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "somewhere",
    "r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.1,
    "bias": "none",
    "target_modules": ["v_proj", "q_proj"],
    "use_dora": False,
    "modules_to_save": None,
    "peft_version": "0.21.2",
}
PREFIX = "base_model.model.model.layers"


def lora_tensors(rank: int = 4, layers: int = 2) -> dict[str, NDArray[Any]]:
    """Random float32 pairs for q_proj and v_proj of `BASE_CONFIG`; the same ones each time."""
    random = np.random.default_rng(0)
    tensors: dict[str, NDArray[Any]] = {}
    for layer in range(layers):
        for kind, high in (("q_proj", 16), ("v_proj", 8)):
            module = f"{PREFIX}.{layer}.self_attn.{kind}"
            tensors[f"{module}.lora_A.weight"] = random.normal(size=(rank, 16)).astype("f4")
            tensors[f"{module}.lora_B.weight"] = random.normal(size=(high, rank)).astype("f4")
    return tensors


def write_base(folder: Path) -> Path:
    """Makes a folder that `identify_base` can identify: `BASE_CONFIG` and a tokenizer."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(dict(BASE_CONFIG)))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1}}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def write_adapter(
    folder: Path,
    tensors: Mapping[str, NDArray[Any]] | None = None,
    config: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Makes a folder as peft writes it.

    Args:
        tensors: `lora_tensors()` if None.
        config: what differs from `LORA_CONFIG`.
        metadata: of the safetensors file.
    """
    folder.mkdir(parents=True)
    chosen = lora_tensors() if tensors is None else dict(tensors)
    save_file(chosen, folder / "adapter_model.safetensors", dict(metadata or {}))
    (folder / "adapter_config.json").write_text(json.dumps({**LORA_CONFIG, **(config or {})}))
    (folder / "README.md").write_text("# A card\n")
    return folder
