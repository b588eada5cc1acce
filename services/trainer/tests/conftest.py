"""A tiny random Llama with its own tokenizer, and training data; no torch is needed to make them.

Workers import torch, which costs seconds, so few tests start one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from safetensors.numpy import save_file

# A busy machine is no defect: nothing is asserted about time.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|> {{ message.content }}"
    "{% if message.role == 'assistant' %} </s>{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    save_file(_weights(), folder / "model.safetensors", {"format": "pt"})
    special = ["<s>", "</s>", "<unk>", "<|system|>", "<|user|>", "<|assistant|>"]
    words = [*special, *(f"w{number}" for number in range(64 - len(special)))]
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": number,
                "content": word,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for number, word in enumerate(special)
        ],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {
            "type": "WordLevel",
            "vocab": {word: number for number, word in enumerate(words)},
            "unk_token": "<unk>",
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def _weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    shapes = {"model.embed_tokens.weight": (64, 64), "model.norm.weight": (64,)}
    for layer in range(2):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.input_layernorm.weight": (64,),
            f"{prefix}.post_attention_layernorm.weight": (64,),
            f"{prefix}.self_attn.q_proj.weight": (64, 64),
            f"{prefix}.self_attn.k_proj.weight": (32, 64),
            f"{prefix}.self_attn.v_proj.weight": (32, 64),
            f"{prefix}.self_attn.o_proj.weight": (64, 64),
            f"{prefix}.mlp.gate_proj.weight": (96, 64),
            f"{prefix}.mlp.up_proj.weight": (96, 64),
            f"{prefix}.mlp.down_proj.weight": (64, 96),
        }
    return {
        name: np.ones(shape, "f4")
        if len(shape) == 1
        else random.normal(0, 0.15, shape).astype("f4")
        for name, shape in shapes.items()
    }


def _lines(count: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(3)
    lines = []
    for _ in range(count):
        words = [f"w{number}" for number in random.integers(0, 50, random.integers(4, 12))]
        prompt = {"role": "user", "content": " ".join(words)}
        lines.append({"messages": [prompt, {"role": "assistant", "content": " ".join(words[:3])}]})
    return lines


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    return folder


@pytest.fixture
def write_data(artifacts: Path) -> Callable[..., dict[str, str]]:
    """Writes lines (24 good ones by default) as data/train.jsonl; gives path and digest."""

    def write(
        lines: list[Any] | None = None, *, count: int = 24, raw: bytes | None = None
    ) -> dict[str, str]:
        path = artifacts / "data" / "train.jsonl"
        path.parent.mkdir(exist_ok=True)
        content = raw
        if content is None:
            chosen = _lines(count) if lines is None else lines
            content = "".join(json.dumps(line) + "\n" for line in chosen).encode()
        path.write_bytes(content)
        return {"path": "data/train.jsonl", "digest": f"sha256:{sha256(content).hexdigest()}"}

    return write
