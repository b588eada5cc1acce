"""Messages as plain values by field name, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.messages import set_values, value_of, values_of, word_of
from tuneproof.trainer.v1 import trainer_pb2 as pb

VALUES = st.fixed_dictionaries(
    {},
    optional={
        "method": st.sampled_from(["qlora_nf4", "lora"]),
        "rank": st.integers(0, 2**32 - 1),
        "alpha": st.floats(allow_nan=False),
        "target_modules": st.lists(st.text(), min_size=1).map(tuple),
        "gradient_checkpointing": st.booleans(),
    },
)


@given(VALUES)
def test_what_is_set_comes_back_and_nothing_else(values):
    message = pb.Hyperparameters()
    set_values(message, values)
    assert values_of(pb.Hyperparameters.FromString(message.SerializeToString())) == values


def test_an_unspecified_enum_counts_as_not_set():
    assert values_of(pb.Hyperparameters(method=pb.METHOD_UNSPECIFIED, rank=0)) == {"rank": 0}


def test_an_enum_of_a_later_version_is_refused_with_the_known_words():
    with pytest.raises(InvalidInput, match="method 99 is not known here; known: qlora_nf4, lora"):
        values_of(pb.Hyperparameters.FromString(b"\x08\x63"))


def test_words_of_enums():
    assert word_of(pb.RunState, pb.RUN_STATE_QUEUED) == "queued"
    assert word_of(pb.RunState, 99) == "99"
    assert value_of(pb.RunState, "failed") == pb.RUN_STATE_FAILED
    with pytest.raises(InvalidInput, match="'gone' is no run state; known: queued, running, succ"):
        value_of(pb.RunState, "gone")
