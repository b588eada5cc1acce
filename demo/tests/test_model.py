"""The weights that ship: small, loadable, and good at both of their tasks."""

from __future__ import annotations

import random
from pathlib import Path

import prompts
import pytest
import reader
import torch
import yaml
from safetensors import safe_open
from transformers import AutoConfig

from tuneproof.data.telecom import generate, judge_forms, oracle_context, score
from tuneproof.data.telecom_grammar import ABSENT

pytestmark = pytest.mark.timeout(60)

DEMO = Path(__file__).parents[1]
MODEL = DEMO / "telecom-reader"


@pytest.fixture(scope="module")
def model() -> reader.Reader:
    torch.set_num_threads(1)
    return reader.load(MODEL)


def test_the_folder_is_small_and_complete() -> None:
    files = {path.name: path.stat().st_size for path in MODEL.iterdir()}
    assert sum(files.values()) <= 8 * 2**20
    assert set(files) == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_the_weights_are_finite_float32_for_a_llama() -> None:
    assert AutoConfig.from_pretrained(MODEL).architectures == ["LlamaForCausalLM"]
    with safe_open(MODEL / "model.safetensors", framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            tensor = file.get_tensor(name)
            assert tensor.dtype == torch.float32
            assert tensor.isfinite().all(), name


def test_it_reads_worlds_that_it_was_not_trained_on(model: reader.Reader) -> None:
    world = generate(7, 150)
    items = random.Random(1).sample(world.items, 40)
    asked = [prompts.ask(item.question, oracle_context(world, item, 12, 7)) for item in items]
    said = model.answer(asked, tokens=24)
    right = [a == item.references["full"][0] for a, item in zip(said, items, strict=True)]
    assert sum(right) >= 0.9 * len(items)


def test_the_demos_questions_leave_it_something_to_win_and_to_lose(model: reader.Reader) -> None:
    spec = yaml.safe_load((DEMO.parent / "studies/demo.yaml").read_text())["dataset"]
    world = generate(spec["seed"], spec["documents"], reworded=spec["reworded"])
    items = random.Random(4).sample(world.items, 60)
    asked = [prompts.ask(item.question, oracle_context(world, item, 12, 7)) for item in items]
    said = model.answer(asked, tokens=24)
    scores = [score(i.references["full"][0], a) for i, a in zip(items, said, strict=True)]
    right = sum(each["accuracy"] == 5 for each in scores) / len(items)
    assert 0.6 <= right <= 0.9
    assert ABSENT in said


def test_the_question_decides_which_fact_is_answered(model: reader.Reader) -> None:
    world = generate(12, 2)
    passages = [document.text for document in world.documents]
    asked = [prompts.ask(item.question, passages) for item in world.items]
    said = model.answer(asked, tokens=24)
    right = [a == item.references["full"][0] for a, item in zip(said, world.items, strict=True)]
    assert sum(right) >= 10


def test_the_nf4_base_reads_as_well(model: reader.Reader) -> None:
    world = generate(7, 150)
    items = random.Random(2).sample(world.items, 30)
    asked = [prompts.ask(item.question, oracle_context(world, item, 12, 7)) for item in items]
    said = reader.load(MODEL, "nf4").answer(asked, tokens=24)
    right = [a == item.references["full"][0] for a, item in zip(said, items, strict=True)]
    assert sum(right) >= 0.85 * len(items)


def test_another_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="must be float32 or nf4"):
        reader.load(MODEL, "int8")


@pytest.mark.parametrize("criterion", prompts.CRITERIA)
def test_it_judges_held_out_forms(model: reader.Reader, criterion: str) -> None:
    template = prompts.templates()[criterion]
    forms = judge_forms(21, 60)
    asked = [prompts.judge(template, f.question, f.reference, f.answer) for f in forms]
    given = [reader.read_score(text) for text in model.answer(asked, tokens=72)]
    right = [g == form.scores[criterion] for g, form in zip(given, forms, strict=True)]
    assert sum(right) >= 0.85 * len(forms)


def test_draws_differ_and_are_as_many_as_asked_for(model: reader.Reader) -> None:
    torch.manual_seed(0)
    # A message of no known kind leaves the model unsure, so that draws at 1.0 scatter.
    drawn = model.sample(["the", "of"], tokens=24, repeats=8)
    assert [len(texts) for texts in drawn] == [8, 8]
    assert len(set(drawn[0])) > 1


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Subject: a, a, same. Score: 5", 5),
        ("Score: 1", 1),
        ("Score: 6", None),
        ("Score: 4. ", None),
        ("Score: 4 Score: 4", None),
        ("none", None),
    ],
)
def test_only_a_form_at_the_end_has_a_score(text: str, score: int | None) -> None:
    assert reader.read_score(text) == score


@pytest.mark.parametrize("criterion", prompts.CRITERIA)
def test_a_rubric_says_what_it_asks(criterion: str) -> None:
    rubric = yaml.safe_load((DEMO / "rubrics" / f"{criterion}.yaml").read_text())
    assert rubric["id"] == f"telecom-{criterion}@1"
    assert rubric["criterion"] == criterion
    assert list(rubric["scale"]) == [1, 2, 3, 4, 5]
    assert rubric["reasoning"] == "before"
    fact = "Elm 1 idle rate is 1 Mbps when band one is warm."
    longest = prompts.filled_form(criterion, fact, fact)
    assert len(reader.load(MODEL).tokenizer(longest)["input_ids"]) < rubric["max_tokens"]


def test_a_placeholder_in_an_answer_stays_text() -> None:
    filled = prompts.judge("{{reference}}|{{answer}}", "q", "r", "{{reference}}")
    assert filled == "r|{{reference}}"
