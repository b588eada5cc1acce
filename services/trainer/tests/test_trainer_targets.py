"""What an adapter changes where its spec does not say."""

from __future__ import annotations

import pytest

from tuneproof_trainer.completion import Base, complete
from tuneproof_trainer.spec import RunSpec

SPEC = RunSpec(adapter_name="a", data_path="a.jsonl", data_digest="sha256:" + "0" * 64)
ATTENTION = ("k_proj", "o_proj", "q_proj", "v_proj")
MIXTURES = ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe", "gpt_oss", "granitemoe"]


def config_of(model_type: str) -> dict[str, object]:
    from transformers import AutoConfig

    return AutoConfig.for_model(model_type).to_dict()


@pytest.mark.parametrize("model_type", MIXTURES)
def test_of_a_mixture_of_experts_the_attention_is_trained(model_type):
    assert complete(SPEC, Base("b", config_of(model_type))).target_modules == ATTENTION


def test_of_a_dense_model_every_linear_layer_is_trained():
    targets = complete(SPEC, Base("b", config_of("llama"))).target_modules
    assert targets == tuple(sorted({*ATTENTION, "gate_proj", "up_proj", "down_proj"}))


def test_what_is_named_is_trained():
    spec = SPEC.model_copy(update={"target_modules": ("v_proj", "q_proj")})
    assert complete(spec, Base("b", config_of("mixtral"))).target_modules == ("q_proj", "v_proj")
