"""The loss over other examples, an early end by it, and precision and scale as they were asked."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tuneproof.adapters import identify_base, read_base_config, verify

from .training_runs import Trained, example

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

# The answer repeats the prompt's second word.
TRAINING = [example(f"w{n} w{n + 1} w{n + 2}", f"w{n + 1}", n + 1) for n in range(12)]
LIKE = [example(f"w{n} w{n + 1} w{n + 2} w{n}", f"w{n + 1} w{n + 1}", n) for n in range(1, 6)]
UNLIKE = [example(f"w{n} w{n + 1}", f"w{40 - n} w{n + 30}", n) for n in range(1, 4)]


def loss_of(base: Path, trained: Trained, examples: list[Any]) -> float:
    """By plain transformers and peft: the mean over all tokens of answers."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tuneproof_trainer.worker.tokens import tokenise

    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(plain, trained.weights.parent)
    sequences = tokenise(AutoTokenizer.from_pretrained(base), examples, max_length=64, path="x")
    total, seen = 0.0, 0
    with torch.no_grad():
        for one in sequences:
            log_probs = model(torch.tensor([one.input_ids])).logits[0].log_softmax(-1)
            for place in range(one.prompt_length, len(one.input_ids)):
                total -= float(log_probs[place - 1, one.input_ids[place]])
                seen += 1
    return total / seen


def test_validation_is_the_mean_over_tokens_and_leaves_the_training_as_it_is(
    base_folder: Path, tmp_path: Path
) -> None:
    asked = {"epochs": 4, "validation_steps": 3, "dropout": 0.1}
    bare = Trained(base_folder, tmp_path / "bare", TRAINING, **(asked | {"validation_steps": 0}))
    found = Trained(base_folder, tmp_path / "validated", TRAINING, validation=LIKE, **asked)
    assert found.digest == bare.digest
    assert bare.result.validated is None
    validated = found.result.validated
    assert validated is not None
    assert list(validated.losses) == [3, 6, 8]  # The last step is validated, too.
    told = {step.step: step.validation_loss for step in found.steps if step.validation_loss}
    assert told == validated.losses
    assert validated.losses[8] == pytest.approx(loss_of(base_folder, found, LIKE), abs=1e-4)
    facts = validated.facts()
    assert facts["validation_examples"] == "5"
    assert float(facts["validation_loss_before"]) > float(facts["validation_loss"])


def test_ten_validations_where_nothing_is_said(base_folder: Path, tmp_path: Path) -> None:
    found = Trained(base_folder, tmp_path / "a", TRAINING, validation=LIKE, max_steps=25, epochs=0)
    assert found.result.validated is not None
    assert list(found.result.validated.losses) == [3, 6, 9, 12, 15, 18, 21, 24, 25]


def test_a_training_that_gets_worse_ends_with_its_best_adapter(
    base_folder: Path, tmp_path: Path
) -> None:
    asked = {"max_steps": 60, "epochs": 0, "validation_steps": 1, "learning_rate": 3e-2}
    found = Trained(
        base_folder,
        tmp_path / "early",
        TRAINING,
        validation=UNLIKE,
        early_stopping_patience=4,
        **asked,
    )
    validated = found.result.validated
    assert validated is not None
    assert validated.stopped_early
    assert found.result.steps == validated.best_step + 4 < 60
    losses = list(validated.losses.values())
    assert min(losses) == validated.best
    assert all(loss >= validated.best for loss in losses[-4:])
    assert loss_of(base_folder, found, UNLIKE) == pytest.approx(validated.best, abs=1e-4)
    # The same as a training that ends there by itself: the last is kept without patience.
    whole = Trained(base_folder, tmp_path / "whole", TRAINING, validation=UNLIKE, **asked)
    assert whole.result.validated is not None
    assert whole.result.steps == 60
    assert not whole.result.validated.stopped_early
    assert loss_of(base_folder, whole, UNLIKE) == pytest.approx(
        whole.result.validated.losses[60], abs=1e-4
    )


def test_a_validator_goes_on_from_what_it_kept(base_folder: Path) -> None:
    import torch

    from tuneproof_trainer.worker.validation import Validator

    from .training_runs import spec_for

    spec = spec_for(base_folder, early_stopping_patience=2, validation_steps=1)
    before, after = (Validator([], spec, 9) for _ in range(2))
    before.found.losses.update({1: 3.0, 2: 2.0})
    before.found.best_step, before.found.before = 2, 4.0
    before._best = {"a": torch.ones(2)}
    after.load_state_dict(before.state_dict())
    assert after.found == before.found
    assert after._best["a"].equal(torch.ones(2))


def test_the_scale_by_the_root_of_the_rank_travels_with_the_adapter(
    base_folder: Path, tmp_path: Path
) -> None:
    found = Trained(base_folder, tmp_path / "rs", TRAINING, max_steps=5, use_rslora=True)
    config = json.loads((tmp_path / "rs/adapter_config.json").read_text())
    assert config["use_rslora"]
    report = verify(
        tmp_path / "rs",
        base=identify_base(base_folder),
        base_config=read_base_config(base_folder),
        max_rank=4,
    )
    assert report.ok, report.defects
    plain = Trained(base_folder, tmp_path / "plain", TRAINING, max_steps=5)
    assert found.digest != plain.digest


def test_precision_is_what_was_asked(base_folder: Path, tmp_path: Path) -> None:
    half = Trained(base_folder, tmp_path / "half", TRAINING, max_steps=2, precision="bf16")
    auto = Trained(base_folder, tmp_path / "auto", TRAINING, max_steps=2)
    full = Trained(base_folder, tmp_path / "full", TRAINING, max_steps=2, precision="fp32")
    assert full.digest == auto.digest != half.digest
    assert half.losses[0] == pytest.approx(full.losses[0], abs=0.1)
    assert half.losses[0] != full.losses[0]


def test_a_loss_that_falls_is_that_of_what_is_learned(base_folder: Path, tmp_path: Path) -> None:
    """Ten validations of a training on like examples: the loss falls more often than it rises."""
    found = Trained(base_folder, tmp_path / "a", TRAINING, validation=LIKE, max_steps=40, epochs=0)
    assert found.result.validated is not None
    losses = [found.result.validated.before, *found.result.validated.losses.values()]
    assert losses[-1] < losses[0]
    assert sum(after < before for before, after in pairwise(losses)) > len(losses) / 2
