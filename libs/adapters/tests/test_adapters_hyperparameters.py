"""Hyper-parameters: one class, the same names in the contract, and bounds that say themselves."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from tuneproof.adapters.hyperparameters import PRESETS, Hyperparameters, out_of_bounds
from tuneproof.trainer.v1 import trainer_pb2 as pb


def test_the_contract_has_the_same_names_in_the_same_order():
    assert list(Hyperparameters.model_fields) == list(pb.Hyperparameters.DESCRIPTOR.fields_by_name)


def test_defaults_are_within_their_bounds():
    assert list(out_of_bounds(Hyperparameters())) == []


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"rank": 513}, "rank is 513, not 1 to 512"),
        ({"dropout": 1.0}, "dropout is 1, not 0 to below 1"),
        ({"alpha": 0.0}, "alpha is 0, not a finite number above 0"),
        ({"learning_rate": math.inf}, "learning_rate is inf, not a finite number above 0"),
        ({"epochs": math.nan}, "epochs is nan, not a finite number of 0 or more"),
        ({"max_length": 1}, "max_length is 1, not a finite number of 2 or more"),
    ],
)
def test_each_broken_bound_is_one_sentence(values, sentence):
    wrong = Hyperparameters.model_construct(**values)
    assert [told for _, told in out_of_bounds(wrong)] == [sentence]


def test_nothing_to_train_and_unknown_names_are_refused():
    with pytest.raises(ValidationError, match="nothing would be trained"):
        Hyperparameters(epochs=0)
    with pytest.raises(ValidationError, match="weight_decay"):
        Hyperparameters(weight_decay=0.1)


def test_a_preset_gives_what_is_not_given():
    paper = Hyperparameters(preset="paper", alpha=32)
    assert (paper.rank, paper.alpha, paper.dropout) == (64, 32, 0.1)
    assert (paper.schedule, paper.effective_batch_size) == ("constant", 16)
    practical = Hyperparameters(preset="practical")
    assert (practical.rank, practical.schedule, practical.epochs) == (16, "cosine", 2)
    assert Hyperparameters.model_validate(paper.model_dump()) == paper
    with pytest.raises(ValidationError, match="'practical' or 'paper'"):
        Hyperparameters(preset="best")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_within_bounds_and_steps_take_the_place_of_its_epochs(preset):
    assert list(out_of_bounds(Hyperparameters(preset=preset))) == []
    limited = Hyperparameters(preset=preset, max_steps=5)
    assert "epochs" not in limited.model_fields_set
    assert Hyperparameters(preset=preset, max_steps=5, epochs=3).epochs == 3


def test_the_content_of_older_settings_is_what_it_was():
    """Keys of finished work stay: a study that goes on trains nothing again."""
    assert list(Hyperparameters(rank=8).content()) == [
        "method",
        "rank",
        "alpha",
        "dropout",
        "target_modules",
        "skip_modules",
        "learning_rate",
        "schedule",
        "warmup_ratio",
        "max_grad_norm",
        "epochs",
        "max_steps",
        "effective_batch_size",
        "micro_batch_size",
        "max_length",
        "gradient_checkpointing",
    ]
    changed = Hyperparameters(preset="paper", packing="bfd").content()
    assert changed["packing"] == "bfd"
    assert "preset" not in changed
    plain = Hyperparameters(**Hyperparameters(preset="paper").model_dump(exclude={"preset"}))
    assert plain.content() == Hyperparameters(preset="paper").content()
