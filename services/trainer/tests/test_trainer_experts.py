"""Adapters of a mixture's experts, which are parameters and no layers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tuneproof.adapters import identify_base, read_base_config, verify
from tuneproof.servicekit.errors import InvalidInput

from .training_runs import Trained, example

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]
EXAMPLES = [example(f"w{n} w{n + 1}", f"w{n + 1}", n) for n in range(1, 7)]
NAMES = ("mlp.experts.down_proj", "mlp.experts.gate_up_proj")


@pytest.fixture(scope="module")
def mixture(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("mixture") / "tiny"
    torch.manual_seed(3)
    config = AutoConfig.for_model(
        "mixtral",
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_local_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(base_folder / name, folder / name)
    return folder


def test_experts_are_trained_by_name_and_such_an_adapter_is_admitted_nowhere(
    mixture: Path, tmp_path: Path
) -> None:
    found = Trained(mixture, tmp_path / "a", EXAMPLES, target_parameters=NAMES, max_steps=4)
    attention = 2 * 4 * (64 + 48 + 48 + 64)
    experts = 2 * 4 * 4 * ((32 + 96) + (48 + 32))
    assert found.result.trainable_parameters == attention + experts
    assert all(float(each.abs().max()) > 0 for each in found.tensors().values())
    report = verify(
        tmp_path / "a",
        base=identify_base(mixture),
        base_config=read_base_config(mixture),
        max_rank=8,
    )
    assert any(defect.code == "unsupported" for defect in report.defects)
    assert "target_parameters" in {defect.where for defect in report.defects}


def test_parameters_that_the_base_lacks_are_told(mixture: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"'w9', which is not a 3-D parameter of the base"):
        Trained(mixture, tmp_path / "a", EXAMPLES, target_parameters=("w9",))


def test_packed_examples_of_a_mixture_do_not_see_one_another(mixture: Path, tmp_path: Path) -> None:
    plain = Trained(mixture, tmp_path / "a", EXAMPLES, max_steps=2)
    free = Trained(mixture, tmp_path / "b", EXAMPLES, max_steps=2, packing="padding_free")
    assert free.losses == pytest.approx(plain.losses, abs=1e-4)
