"""What an adapter changes where its spec does not say."""

from __future__ import annotations

import pytest

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof_trainer.bases import Base
from tuneproof_trainer.defaults import complete
from tuneproof_trainer.spec import RunSpec

SPEC = RunSpec(adapter_name="a", data_path="a.jsonl", data_digest="sha256:" + "0" * 64)
ATTENTION = ("k_proj", "o_proj", "q_proj", "v_proj")
MIXTURES = ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe", "gpt_oss", "granitemoe"]


def config_of(model_type: str) -> dict[str, object]:
    from transformers import AutoConfig

    return AutoConfig.for_model(model_type).to_dict()


def targets(model_type: str, spec: RunSpec = SPEC) -> tuple[str, ...]:
    return complete(spec, Base("b", config_of(model_type))).hyperparameters.target_modules


@pytest.mark.parametrize("model_type", MIXTURES)
def test_of_a_mixture_of_experts_the_attention_is_trained(model_type):
    assert targets(model_type) == ATTENTION


def test_of_a_dense_model_every_linear_layer_is_trained():
    assert targets("llama") == tuple(sorted({*ATTENTION, "gate_proj", "up_proj", "down_proj"}))


def test_what_is_named_is_trained():
    spec = SPEC.model_copy(
        update={"hyperparameters": Hyperparameters(target_modules=("v_proj", "q_proj"))}
    )
    assert targets("mixtral", spec) == (
        "q_proj",
        "v_proj",
    )
