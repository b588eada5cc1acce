"""Which base models are mixtures of experts, by their config.json."""

from __future__ import annotations

import pytest

from tuneproof.adapters import has_experts


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2},
        {"model_type": "qwen3_moe", "num_experts": 128},
        {"model_type": "deepseek_v3", "n_routed_experts": 256, "n_shared_experts": 1},
        {"model_type": "ernie4_5_moe", "moe_num_experts": 64},
        {"model_type": "dbrx", "ffn_config": {"moe_num_experts": 16}},
        {"model_type": "qwen3_vl_moe", "text_config": {"num_experts": 128}, "vision_config": {}},
        {"model_type": "hunyuan_v1_moe", "num_experts": [1, 64]},
    ],
)
def test_mixtures_are_found_whatever_they_call_their_experts(config):
    assert has_experts(config)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama"},
        {"model_type": "granitemoehybrid", "num_local_experts": 0, "num_experts_per_tok": 0},
        {"model_type": "hunyuan_v1_moe", "num_experts": 1},
        {"model_type": "doge", "is_moe": False, "num_experts": 16384},
        {"model_type": "gemma4", "enable_moe_block": False, "num_experts": None},
        {"model_type": "qwen3_5", "text_config": {"model_type": "qwen3_5_text"}},
    ],
)
def test_dense_models_are_none(config):
    assert not has_experts(config)
