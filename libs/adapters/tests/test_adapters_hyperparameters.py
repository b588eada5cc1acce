"""Hyper-parameters: one class, the same names in the contract, and bounds that say themselves."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from tuneproof.adapters.hyperparameters import Hyperparameters, out_of_bounds
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
