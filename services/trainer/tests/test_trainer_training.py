"""What the loss sees, measured against plain transformers; and that peft loads what is saved.

These import torch into the test's own process.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuneproof.adapters import Registry, identify_base, read_base_config, verify
from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_trainer.bases import Base
from tuneproof_trainer.data import Example, parse_examples
from tuneproof_trainer.defaults import complete
from tuneproof_trainer.spec import RunSpec
from tuneproof_trainer.worker.tokens import IGNORED, tokenise

from .training_runs import Trained

Data = Callable[..., dict[str, str]]
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def tokenizer(base_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_folder)


def example(answer: str = "w3 w4", line: int = 1) -> Example:
    said = (("system", "w9"), ("user", "w1 w2"), ("assistant", answer))
    return Example(line, tuple({"role": role, "content": text} for role, text in said))


def test_the_loss_sees_the_answer_and_its_end_and_the_prompt_is_servings(tokenizer: Any) -> None:
    one = example()
    (found,) = tokenise(tokenizer, [one], max_length=64, path="x")
    prompt = tokenizer.apply_chat_template(
        list(one.messages[:-1]), add_generation_prompt=True, return_dict=False
    )
    assert list(found.input_ids[: found.prompt_length]) == prompt
    assert tokenizer.convert_ids_to_tokens(found.input_ids[found.prompt_length :]) == [
        "w3",
        "w4",
        "</s>",
    ]
    assert found.labels == (IGNORED,) * len(prompt) + found.input_ids[len(prompt) :]


@pytest.mark.parametrize(
    ("message", "opening"),
    [
        ("assistant {{ m.content }} ", "assistant "),  # No end of sequence.
        ("<|user|> {{ m.content }} </s> w8 w8 ", "<|user|> "),  # One that is followed by more.
        ("{{ m.content }} ", "w40 w41 "),  # The past is written otherwise than the present.
    ],
)
def test_whatever_the_template_the_answer_ends_once(
    tokenizer: Any, message: str, opening: str
) -> None:
    tokenizer.chat_template = (
        f"{{% for m in messages %}}{message}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{opening}{{% endif %}}"
    )
    one = example()
    (found,) = tokenise(tokenizer, [one], max_length=64, path="x")
    prompt = tokenizer.apply_chat_template(
        list(one.messages[:-1]), add_generation_prompt=True, return_dict=False
    )
    assert list(found.input_ids[: found.prompt_length]) == prompt
    seen = [token for token in found.labels if token != IGNORED]
    assert tokenizer.convert_ids_to_tokens(seen) == ["w3", "w4", "</s>"]


def test_what_is_too_long_is_refused_by_line(tokenizer: Any) -> None:
    examples = [example(), example("w3 " * 20, line=7)]
    with pytest.raises(InvalidInput, match=r"data: line 7 has 27 tokens, above max_length 26"):
        tokenise(tokenizer, examples, max_length=26, path="data")
    assert len(tokenise(tokenizer, examples, max_length=27, path="data")) == 2


def test_a_base_without_template_or_end_is_told(tokenizer: Any) -> None:
    tokenizer.eos_token = None
    with pytest.raises(InvalidInput, match="no eos_token"):
        tokenise(tokenizer, [example()], max_length=64, path="x")
    tokenizer.chat_template = None
    with pytest.raises(InvalidInput, match="no chat template"):
        tokenise(tokenizer, [example()], max_length=64, path="x")


def small_spec(base_folder: Path, **more: Any) -> RunSpec:
    asked = {
        "method": "lora",
        "rank": 4,
        "max_steps": 2,
        "effective_batch_size": 6,
        "micro_batch_size": 3,
        "learning_rate": 1e-2,
    }
    spec = RunSpec(
        data_path="data/train.jsonl",
        data_digest="sha256:" + "0" * 64,
        adapter_name="short",
        hyperparameters=Hyperparameters(**(asked | more)),
    )
    return complete(spec, Base("tiny", read_base_config(base_folder)))


def test_the_first_loss_is_the_bases_over_answer_tokens_and_peft_loads_the_adapter(
    base_folder: Path, artifacts: Path, write_data: Data, tokenizer: Any
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from tuneproof_trainer.worker.base_model import load_base
    from tuneproof_trainer.worker.training import train

    torch.set_num_threads(1)
    write_data(count=6)
    content = (artifacts / "data" / "train.jsonl").read_bytes()
    # Answers of unlike length in one batch: the mean is over tokens, not over examples.
    examples = [*parse_examples(content, "x")[:5], example("w1 w2 w3 w4 w5 w6 w7 w8 w9")]
    sequences = tokenise(tokenizer, examples, max_length=64, path="x")
    spec = small_spec(base_folder)
    steps: list[Any] = []
    target = artifacts / "out"
    outcome = train(
        load_base(base_folder, spec.hyperparameters, "cpu"),
        tokenizer,
        sequences,
        spec,
        workspace=artifacts / "workspace",
        target=target,
        on_step=steps.append,
    )

    plain = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    total, seen = 0.0, 0
    with torch.no_grad():
        for one in sequences:
            log_probs = plain(torch.tensor([one.input_ids])).logits[0].log_softmax(-1)
            for place in range(one.prompt_length, len(one.input_ids)):
                total -= float(log_probs[place - 1, one.input_ids[place]])
                seen += 1
    assert steps[0].loss == pytest.approx(total / seen, abs=1e-4)
    assert outcome.first_loss == steps[0].loss
    assert [(step.step, step.total_steps) for step in steps] == [(1, 2), (2, 2)]
    assert (outcome.adapter_precision, outcome.optimizer) == ("float32", "adamw_torch")
    assert outcome.peak_gpu_bytes == 0

    registry = Registry(str(artifacts))
    ref = registry.commit(target, name="short", base=identify_base(base_folder), provenance={})
    fetched = registry.fetch(ref, artifacts / "cache")
    prompt = torch.tensor([sequences[0].input_ids])
    with torch.no_grad():
        before = plain(prompt).logits
        after = PeftModel.from_pretrained(plain, fetched)(prompt).logits
    assert float((before - after).abs().max()) > 1e-3


@pytest.mark.parametrize("warmup_ratio", [0.03, 1.0])
def test_a_training_of_one_step_has_an_effect(
    base_folder: Path, tmp_path: Path, warmup_ratio: float
) -> None:
    said = [example(line=line) for line in range(1, 7)]
    found = Trained(base_folder, tmp_path, said, epochs=1, warmup_ratio=warmup_ratio)
    assert found.result.steps == 1
    products = [each for name, each in found.tensors().items() if "lora_B" in name]
    assert all(each.any() for each in products)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"target_modules": ("layers.9.self_attn.q_proj",)},
            "which is not a linear layer of the base",
        ),
        (
            {"method": "qlora_nf4", "skip_modules": ("r_proj",)},
            "skip_modules holds 'r_proj', which is not a linear layer",
        ),
    ],
)
def test_modules_that_the_base_lacks_are_told(
    base_folder: Path, change: dict[str, Any], said: str
) -> None:
    from tuneproof_trainer.worker.base_model import load_base

    with pytest.raises(InvalidInput, match=said):
        load_base(base_folder, small_spec(base_folder, **change).hyperparameters, "cpu")


def test_a_gpu_that_is_not_there_is_told(
    base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from tuneproof_trainer.worker.base_model import load_base

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidInput, match="this machine shows no GPU"):
        load_base(base_folder, small_spec(base_folder).hyperparameters, "cuda")


@pytest.mark.parametrize(
    ("device", "count", "given", "shown"),
    [
        ("auto", 1, None, "0"),
        ("auto", 2, None, "0,1"),
        ("cuda", 1, "3,1", "3"),
        ("cuda", 2, "3,1,2", "3,1"),
        ("auto", 1, "GPU-7f,GPU-8a", "GPU-7f"),
        ("auto", 1, "", ""),
        ("cpu", 2, "3,1", ""),
    ],
)
def test_a_worker_sees_its_gpus_or_none(
    monkeypatch: pytest.MonkeyPatch, device: str, count: int, given: str | None, shown: str
) -> None:
    """TRL 1.16 refuses several GPUs in a process; bitsandbytes takes one that nobody asked for."""
    from tuneproof_trainer.worker.processes import visible_devices

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_devices(device, count) == {"CUDA_VISIBLE_DEVICES": shown}


def test_skipped_modules_and_the_output_stay_unquantised(base_folder: Path, tmp_path: Path) -> None:
    import json

    from safetensors.numpy import load_file, save_file

    from tuneproof_trainer.worker.base_model import load_base

    untied = shutil.copytree(base_folder, tmp_path / "untied")
    config = json.loads((untied / "config.json").read_text()) | {"tie_word_embeddings": False}
    (untied / "config.json").write_text(json.dumps(config))
    weights = load_file(untied / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    save_file(weights, untied / "model.safetensors", {"format": "pt"})
    skip = ("layers.0.self_attn.q_proj", "k_proj")
    spec = small_spec(untied, method="qlora_nf4", skip_modules=skip)
    base = load_base(untied, spec.hyperparameters, "cpu")
    quantised = {
        name for name, module in base.model.named_modules() if type(module).__name__ == "Linear4bit"
    }
    assert "lm_head" not in quantised
    assert not any(name.endswith("k_proj") for name in quantised)
    assert "model.layers.0.self_attn.q_proj" not in quantised
    assert "model.layers.1.self_attn.q_proj" in quantised
    assert (base.quantised_layers, base.linear_layers, len(quantised)) == (11, 14, 11)
    assert base.precision == ("nf4 (double quantised) in 11 of 14 linear layers, float32 elsewhere")


@pytest.mark.parametrize(
    "mixture",
    [
        {"model_type": "mixtral", "num_local_experts": 4, "intermediate_size": 48},
        {"model_type": "qwen3_moe", "num_experts": 4, "moe_intermediate_size": 48},
    ],
)
def test_an_adapter_of_a_mixture_of_experts_is_admitted(
    base_folder: Path,
    artifacts: Path,
    write_data: Data,
    tmp_path: Path,
    mixture: dict[str, Any],
) -> None:
    """peft 0.21's all-linear adapts the experts too, and such an adapter is admitted nowhere."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from tuneproof_trainer.worker.base_model import load_base
    from tuneproof_trainer.worker.training import train

    base = tmp_path / "mixture"
    torch.manual_seed(3)
    config = AutoConfig.for_model(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_experts_per_tok=2,
        bos_token_id=0,
        eos_token_id=1,
        **mixture,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(base_folder / name, base / name)
    write_data(count=6)
    examples = parse_examples((artifacts / "data" / "train.jsonl").read_bytes(), "x")
    tokenizer = AutoTokenizer.from_pretrained(base)
    spec = small_spec(base)
    target = artifacts / "out"
    result = train(
        load_base(base, spec.hyperparameters, "cpu"),
        tokenizer,
        tokenise(tokenizer, examples, max_length=64, path="x"),
        spec,
        workspace=artifacts / "workspace",
        target=target,
        on_step=lambda _: None,
    )
    assert result.trainable_parameters == 2 * 4 * (64 + 48 + 48 + 64)
    report = verify(
        target, base=identify_base(base), base_config=read_base_config(base), max_rank=8
    )
    assert report.ok, report.defects
