"""How the weights are made: the circuit, the examples, NF4, and a run that is cut in two."""

from __future__ import annotations

import random
from pathlib import Path

import bitsandbytes.functional as bnb
import circuit
import examples
import nf4
import prompts
import pytest
import torch
import train
import vocabulary
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from tuneproof.data.telecom_grammar import ABSENT

pytestmark = pytest.mark.timeout(120)

PLAN = train.Plan(
    steps=6,
    batch=4,
    judge_share=0.5,
    late_judge_share=0.75,
    late_from=0.5,
    matrix_rate=0.004,
    rest_rate=0.001,
    decay=0.5,
    seed=3,
    half=False,
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_the_circuit_copies_before_any_training() -> None:
    tokenizer = vocabulary.build()
    model = LlamaForCausalLM(circuit.config(tokenizer.get_vocab_size(), 1, 0, 256))
    circuit.initialise(model, seed=0)
    fact = "Alder 40 transmit power is 46 dBm when band seven is active."
    other = "Birch 7 receive gain is 12 dB when ring two is cold."
    ids = torch.tensor([tokenizer.encode(f"{fact} {other} {fact}").ids])
    with torch.inference_mode():
        guessed = model(input_ids=ids).logits[0].argmax(dim=-1)
    second = slice(-9, -1)
    assert (guessed[second] == ids[0, -8:]).float().mean() >= 0.75


def test_rounding_is_that_of_bitsandbytes() -> None:
    weight = torch.randn(32, 128, generator=torch.Generator().manual_seed(0))
    packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    assert torch.allclose(nf4.rounded(weight), bnb.dequantize_4bit(packed, state), atol=1e-6)


def test_rounded_weights_are_felt_inside_only_and_gradients_pass() -> None:
    layer = torch.nn.Linear(64, 64, bias=False)
    before = layer.weight.detach().clone()
    with nf4.felt([layer]):
        assert torch.equal(layer.weight, nf4.rounded(before))
        layer(torch.ones(1, 64)).sum().backward()
    assert torch.equal(layer.weight, before)
    assert torch.equal(layer.weight.grad, torch.ones(64, 64))


def test_the_heads_that_count_positions_are_left_out_of_nf4() -> None:
    model = LlamaForCausalLM(circuit.config(300, 1, 0, 256))
    chosen = {id(layer) for layer in nf4.quantised(model)}
    first, second = (layer.self_attn for layer in model.model.layers[:2])
    assert not chosen & {id(first.q_proj), id(first.k_proj), id(model.lm_head)}
    assert {id(first.v_proj), id(second.q_proj)} <= chosen
    assert len(chosen) == 19


def test_a_questions_evidence_is_in_its_passages_unless_it_is_absent() -> None:
    rng = random.Random(5)
    absent = 0
    for _ in range(300):
        example = examples.question(rng, examples.Shape(rng.randint(1, 6), rng.randint(1, 4)))
        if example.answer == ABSENT:
            subject = example.prompt.rsplit("What is the ", 1)[1].removesuffix("?")
            assert f"{subject} is" not in example.prompt
            absent += 1
        else:
            assert example.answer in example.prompt
    assert 5 <= absent <= 40


def test_forms_end_in_one_score_and_restate_the_reference() -> None:
    rng = random.Random(6)
    templates = prompts.templates()
    for _ in range(100):
        example = examples.form(rng, templates)
        assert example.answer.count("Score:") == 1
        assert example.answer[-1] in "12345"
        assert "Subject: " in example.answer


def test_a_run_that_is_cut_gives_what_one_run_gives(tmp_path: Path) -> None:
    whole = train.Training(PLAN, vocabulary.build())
    train.run(whole, tmp_path / "unused", seconds=60)
    first = train.Training(PLAN, vocabulary.build())
    for _ in range(4):
        first.advance()
    first.save(tmp_path / "checkpoint")
    second = train.Training(PLAN, vocabulary.build())
    second.load(tmp_path / "checkpoint")
    train.run(second, tmp_path / "unused", seconds=60)
    assert second.step == PLAN.steps
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name


def test_steps_lower_the_loss_and_the_folder_loads(tmp_path: Path) -> None:
    training = train.Training(PLAN, vocabulary.build())
    first = sum(training.advance())
    for _ in range(4):
        training.advance()
    assert sum(training.advance()) < first
    train.write(training.model, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    for name, tensor in training.model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
