"""The memory plan beside what a training takes on a CPU, tensor by tensor.

The GPU's peaks are compared in libs/adapters/tests/test_adapters_memory.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuneproof.adapters import read_base_config
from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof_trainer.bases import Base
from tuneproof_trainer.defaults import complete
from tuneproof_trainer.plan.memory import needed, parts_of
from tuneproof_trainer.spec import RunSpec

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

SMALL = {
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
TOKENS, BATCH = 128, 4


def make_base(folder: Path, **more: Any) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("llama", **(SMALL | more))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("shape", "answer", "asked"),
    [
        ({}, 16, {"method": "qlora_nf4"}),
        ({"num_hidden_layers": 2, "hidden_size": 512, "num_key_value_heads": 4}, 16, {}),
        ({"vocab_size": 8192}, TOKENS, {}),
        ({}, 16, {"gradient_checkpointing": True}),
        ({}, 16, {"dropout": 0.1}),
    ],
    ids=["nf4", "wide", "all answer", "checkpointing", "dropout"],
)
def test_the_plan_is_what_the_training_takes(
    base_folder: Path, tmp_path: Path, shape: dict[str, Any], answer: int, asked: dict[str, Any]
) -> None:
    import torch
    from transformers import AutoTokenizer

    from tuneproof_trainer.worker.base_model import load_base
    from tuneproof_trainer.worker.tokens import Sequences
    from tuneproof_trainer.worker.training import train

    from .live_tensors import LiveTensors

    torch.set_num_threads(1)
    make_base(tmp_path / "base", **shape)
    config = read_base_config(tmp_path / "base")
    settings = {"method": "lora", "max_steps": 2, "effective_batch_size": BATCH}
    spec = RunSpec(
        data_path="x",
        data_digest="sha256:" + "0" * 64,
        adapter_name="a",
        hyperparameters=Hyperparameters(max_length=TOKENS, **(settings | asked)),
    )
    spec = complete(spec, Base("base", config))
    base = load_base(tmp_path / "base", spec.hyperparameters, "cpu")
    with LiveTensors() as live:
        for each in (*base.model.parameters(), *base.model.buffers()):
            live.add(each.detach())
        train(
            base,
            AutoTokenizer.from_pretrained(base_folder),
            [Sequences((2,) * TOKENS, TOKENS - answer)] * BATCH,
            spec,
            workspace=tmp_path / "workspace",
            target=tmp_path / "target",
            on_step=lambda _: None,
        )
    plan = needed(config, spec.hyperparameters, on_gpu=False, tokens=TOKENS, answer_tokens=answer)
    assert plan is not None
    assert live.most == pytest.approx(plan.total, rel=0.08)
    assert sum(parts_of(plan).values()) == plan.total
