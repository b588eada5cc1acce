"""`study plan`: what a study would do, at which rates, and what it warns of."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from fakes import served
from small_study import SmallStudy, invoke

from tuneproof.adapters.memory import training_memory
from tuneproof.data.lengths import Lengths
from tuneproof.study.design.prepare import Request, prepare
from tuneproof.study.forecast import Rates, forecast, forecast_of_models, rates_of
from tuneproof.study.state.store import open_state
from tuneproof.study.tokens import tokens_by_cell

pytestmark = pytest.mark.timeout(120)
MODEL = str(Path(__file__).parents[2] / "demo/telecom-reader")
NO_RATES = Rates()


class Words:
    """A tokenizer whose tokens are words."""

    def __init__(self, context: int, config=None) -> None:
        self.context = context
        self.config = config or {}

    def lengths(self, texts):
        counts = sorted(len(text.split()) for text in texts.values())
        return Lengths(len(counts), counts[len(counts) // 2], counts[-1], counts[-1], "")


@pytest.fixture
def small(tmp_path):
    return SmallStudy(tmp_path)


@pytest.fixture
def run(capsys, monkeypatch):
    return partial(invoke, capsys, monkeypatch)


def planned(small, *, rates=NO_RATES, context=0, primary=2, config=None):
    plan = prepare(Request(small.file, small.state)).plan
    return forecast(plan, rates, Words(context, config) if context else None, primary)


def planned_whole(small, *, rates=NO_RATES, context=4096):
    """Of all models, each with the same rates and tokenizer."""
    prepared = prepare(Request(small.file, small.state))
    known = {base.name: (rates, Words(context)) for base in prepared.sources.bases}
    return forecast_of_models(prepared.plan, known, 2)


def test_hours_are_rates_times_pieces(small):
    small.edit("hyperparameters: {rank: 4}", "hyperparameters: {epochs: 3}")
    found = planned(small, rates=Rates(training=10.0, answers=3.0))
    assert found.hours == {
        "training": 2 * 8 * 3 * 10 / 3600,
        "answers": 36 * 3 / 3600,
        "grades": None,
    }


def test_the_steps_may_end_a_training(small):
    small.edit("hyperparameters: {rank: 4}", "hyperparameters: {max_steps: 1, epochs: 0}")
    assert planned(small, rates=Rates(training=3600.0)).hours["training"] == 2 * 16


async def test_a_run_measures_the_rates_of_later_plans(small):
    async with served(small.world()) as target:
        await small.run(target)
    with open_state(small.state, write=False) as state:
        rates = rates_of(state, "tiny", "tiny")
        other = rates_of(state, "other", "other")
    assert rates.training == 2 * 10 / (2 * 8)
    assert rates.answers > 0
    assert rates.grades > 0
    assert other == Rates()


def test_tokens_are_counted_by_what_a_prompt_holds(small):
    start, end = "  - {name: short", "training:"
    text = small.file.read_text()
    head, rest = text[: text.index(start)], text[text.index(end) :]
    small.file.write_text(f"{head}  - {{name: by-heart, context: none}}\n{rest}")
    by_heart = planned(small, context=10_000).tokens["prompts"]
    shots = "{name: shots, examples: {k: 3, references: full}}"
    small.file.write_text(f"{head}  - {{name: by-heart, context: none}}\n  - {shots}\n{rest}")
    with_shots = planned(small, context=10_000).tokens
    assert with_shots["prompts"] > 3 * by_heart
    assert with_shots["training"] == 0
    assert with_shots["answers"] == 3 * 12 * 32


def test_too_long_a_prompt_is_warned_of(small):
    assert not any("the model reads" in text for text in planned(small, context=4096).warnings)
    warned = planned(small, context=100).warnings
    assert any(text.startswith("baseline: a prompt with its answer takes") for text in warned)
    small.edit("hyperparameters: {rank: 4}", "hyperparameters: {max_length: 60}")
    warned = planned(small, context=4096).warnings
    assert any("max_length is 60" in text and text.startswith("short-8-s1") for text in warned)


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ("{sizes: [8], seeds: [1, 2, 3]}", None),
        ("{sizes: [40], seeds: [1, 2, 3]}", "every seed draws the same"),
        ("{sizes: [30], seeds: [1, 2, 3]}", "two seeds share about 75% of their 30 questions"),
        ("{sizes: [40]}", "with 1 of 3 seeds the verdicts are about these adapters"),
    ],
)
def test_draws_that_cannot_differ_are_warned_of(small, training, told):
    small.edit("training: {sizes: [8], seeds: [1], hyperparameters: {rank: 4}}",
               f"training: {training}")  # fmt: skip
    warned = [text for text in planned(small).warnings if "seed" in text]
    assert any(told in text for text in warned) if told else not warned


def test_few_clusters_and_many_comparisons_are_warned_of(small):
    warned = planned(small, primary=13).warnings
    assert any("the test has" in text and "clusters: below 30" in text for text in warned)
    assert any(text.startswith("13 primary comparisons") for text in warned)


async def test_the_command_prints_grid_counts_rates_and_warnings(small, run):
    async with served(small.world()) as target:
        await small.run(target)
    flags = ["--state", str(small.state)]
    code, out, err = run("study", "plan", str(small.file), *flags)
    assert code == 0, err
    assert "short" in out
    assert "closed book" in out
    assert "primary comparisons  4" in out
    assert "time of training     about" in out
    assert "tokens and GPU memory are not counted: cannot read the tokenizer of" in out
    assert "warning: the test has" in out
    code, out, _ = run("study", "plan", str(small.file), *flags, "--json")
    value = json.loads(out)
    assert value["hours"]["training"] == pytest.approx(20 / 3600)
    assert value["grid"][1] == {
        "cell": "short-8-s1",
        "arm": "short",
        "size": 8,
        "seed": 1,
        "tuned": True,
        "model": "tiny",
    }


def test_a_plan_counts_the_models_tokens(small, run):
    pytest.importorskip("tokenizers")
    code, out, err = run("study", "plan", str(small.file), "--model", MODEL, "--json")
    assert code == 0, err
    tokens = json.loads(out)["tokens"]
    assert tokens["prompts"] > 36 * 3 * 10
    assert tokens["training"] > 0


LLAMA_8B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}


def test_the_memory_of_each_training_is_that_of_its_longest_example(small):
    small.edit("hyperparameters: {rank: 4}", "hyperparameters: {micro_batch_size: 4}")
    known = planned(small, context=4096, config=LLAMA_8B).memory
    prepared = prepare(Request(small.file, small.state))
    assert set(known) == {cell.name for cell in prepared.plan.tuned}
    lengths = tokens_by_cell(prepared.plan, Words(4096))
    for cell in prepared.plan.tuned:
        of = lengths[cell.name]
        assert known[cell.name] == training_memory(
            LLAMA_8B,
            cell.hyperparameters,
            tokens=of.example.longest,
            answer_tokens=of.answer.longest,
        )
    # Of the two arms one shows passages, whose longer prompts take more.
    assert len({taken.total for taken in known.values()}) == 2
    assert not planned(small, context=4096, config={"model_type": "other"}).memory
    assert not planned(small).memory


def test_a_training_that_no_gpu_holds_is_warned_of(small):
    values = "{effective_batch_size: 4096, micro_batch_size: 4096}"
    small.edit("hyperparameters: {rank: 4}", f"hyperparameters: {values}")
    warned = planned(small, context=4096, config=LLAMA_8B).warnings
    told = [text for text in warned if "more than is safe on a GPU of 80 GB" in text]
    assert len(told) == 2  # each arm once
    assert all(text.endswith("or set gradient_checkpointing") for text in told)
    small.edit("micro_batch_size: 4096", "micro_batch_size: 1")
    warned = planned(small, context=4096, config=LLAMA_8B).warnings
    assert not any("GPU" in text for text in warned)


def test_a_micro_batch_left_open_is_the_largest_that_fits(small):
    """As the trainer chooses it: with nothing said, 8B on long rows needs a smaller one."""
    small.edit("hyperparameters: {rank: 4}", "hyperparameters: {rank: 16}")
    wide = LLAMA_8B | {"intermediate_size": 14336 * 16}
    open_, narrow = (planned(small, context=4096, config=each) for each in (wide, LLAMA_8B))
    for found in (open_, narrow):
        assert all(taken.gib <= 72 for taken in found.memory.values())
        assert not any("GPU" in text for text in found.warnings)
    huge = LLAMA_8B | {"num_hidden_layers": 1000}
    found = planned(small, context=4096, config=huge)
    told = [text for text in found.warnings if "more than is safe" in text]
    assert len(told) == 2
    assert all(text.endswith("it needs a larger GPU, or a smaller base") for text in told)


def test_the_command_shows_the_memory_of_each_arm(small, run):
    pytest.importorskip("tokenizers")
    code, out, err = run("study", "plan", str(small.file), "--model", MODEL)
    assert code == 0, err
    assert "GPU memory" in out
    assert "memory of a training up to about 0." in out
    code, out, _ = run("study", "plan", str(small.file), "--model", MODEL, "--json")
    value = json.loads(out)
    tuned = [cell for cell in value["grid"] if cell["tuned"]]
    assert all(0 < cell["memory_gib"] < 1 for cell in tuned)
    assert set(value["memory"]) == {cell["cell"] for cell in tuned}
    assert all("memory_gib" not in cell for cell in value["grid"] if not cell["tuned"])


def test_answers_are_priced_by_tokens_or_by_hours(small):
    rates = Rates(training=36.0, answers=3.6)
    assert not planned_whole(small, rates=rates).prices
    small.file.write_text(small.file.read_text() + "costs: {gpu_hour: 2}\n")
    found = planned_whole(small, rates=rates)
    assert found.prices == {
        "the base model": pytest.approx(2 * (found.hours["training"] + found.hours["answers"]))
    }
    assert found.prices["the base model"] > 0
    assert not planned_whole(small, rates=Rates(answers=3.6)).prices  # the trainings' hours?
    small.edit("costs: {gpu_hour: 2}", "costs: {prompt_tokens: 1, completion_tokens: 10}")
    found = planned_whole(small)
    expected = (found.tokens["prompts"] + 10 * found.tokens["answers"]) / 1e6
    assert found.prices == {"the base model": pytest.approx(expected)}
