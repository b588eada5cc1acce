"""Messages as plain values by field name, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.generator.v1 import generator_pb2
from tuneproof.judge.v1 import judge_pb2
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.messages import message_of, value_from, values_of, word_of
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
    message = message_of(pb.Hyperparameters, **values)
    assert values_of(pb.Hyperparameters.FromString(message.SerializeToString())) == values


def test_an_unspecified_enum_counts_as_not_set():
    assert values_of(pb.Hyperparameters(method=pb.METHOD_UNSPECIFIED, rank=0)) == {"rank": 0}


def test_an_enum_of_a_later_version_is_refused_with_the_known_words():
    with pytest.raises(InvalidInput, match="method 99 is not known here; known: qlora_nf4, lora"):
        values_of(pb.Hyperparameters.FromString(b"\x08\x63"))


def test_words_of_enums():
    assert word_of(pb.RunState, pb.RUN_STATE_QUEUED) == "queued"
    assert word_of(pb.RunState, 99) == "99"
    assert message_of(pb.Run, state="failed").state == pb.RUN_STATE_FAILED
    with pytest.raises(InvalidInput, match="run state 'gone' is not known; known: queued, runn"):
        message_of(pb.Run, state="gone")


@dataclass(frozen=True)
class Change:
    state: str
    reason: str
    time: datetime | None


@dataclass(frozen=True)
class Adapter:
    """A part of the generator's message, and a field that it does not have."""

    ref: str
    state: str
    required: bool
    aliases: tuple[str, ...]
    transitions: tuple[Change, ...]
    last_used_time: datetime | None
    residency: str
    note: str = "here only"


TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
STATES = st.sampled_from(["pending", "ready", "failed"])
CHANGES = st.builds(Change, STATES, st.text(), st.none() | TIMES)


@given(
    st.builds(
        Adapter,
        ref=st.text(),
        state=STATES,
        required=st.booleans(),
        aliases=st.lists(st.text()).map(tuple),
        transitions=st.lists(CHANGES).map(tuple),
        last_used_time=st.none() | TIMES,
        residency=st.sampled_from(["host", "slot"]),
        note=st.just("here only"),
    )
)
def test_a_value_class_comes_back_from_its_message(value):
    message = message_of(generator_pb2.Adapter, value)
    again = generator_pb2.Adapter.FromString(message.SerializeToString())
    assert value_from(Adapter, again) == value


def test_what_is_given_wins_over_the_value():
    change = Change("ready", "", None)
    message = message_of(generator_pb2.StateTransition, change, state="failed", reason="broken")
    assert value_from(Change, message, reason="told anew") == Change("failed", "told anew", None)


def test_a_mapping_becomes_messages_of_two_fields():
    message = message_of(generator_pb2.Adapter, stage_times={"fetch": 0.25, "load": -1.0})
    spent = [(one.stage, one.duration.ToTimedelta().total_seconds()) for one in message.stage_times]
    assert spent == [("fetch", 0.25), ("load", 0.0)]


@dataclass(frozen=True)
class Scores:
    mean: float | None
    labels: Mapping[str, str] = field(default_factory=dict)


def test_an_absent_number_is_none_and_a_zero_is_not():
    assert value_from(Scores, judge_pb2.CriterionGrade()) == Scores(None)
    assert value_from(Scores, message_of(judge_pb2.CriterionGrade, Scores(0.0))) == Scores(0.0)


def test_a_map_comes_back_as_a_mapping():
    rubric = message_of(judge_pb2.Rubric, scale={1: "wrong", 5: "right"})
    assert values_of(rubric)["scale"] == {1: "wrong", 5: "right"}
