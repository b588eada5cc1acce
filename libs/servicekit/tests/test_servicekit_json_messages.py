"""JSON and protobuf's messages: what goes out comes back, and fits its schema."""

import json

import jsonschema
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.judge.v1 import judge_pb2 as pb
from tuneproof.servicekit.errors import InvalidInput, Overloaded
from tuneproof.servicekit.json_messages import (
    json_of,
    message_from_json,
    schemas_of,
    values_of_texts,
)
from tuneproof.servicekit.status import status_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
REQUESTS = st.builds(
    pb.GradeBatchRequest,
    id=TEXTS,
    grade=st.builds(
        pb.GradeRequest,
        question=TEXTS,
        references=st.lists(TEXTS, max_size=3),
        repeats=st.integers(0, 2**32 - 1),
        seed=st.integers(0, 2**64 - 1),
        temperature=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        mode=st.sampled_from(pb.Mode.values()),
        joint=st.booleans(),
    ),
)


def holds(message, *, written: bool) -> None:
    name = message.DESCRIPTOR.name
    components = {"schemas": schemas_of(message.DESCRIPTOR, written=written)}
    schema = {"$ref": f"#/components/schemas/{name}", "components": components}
    jsonschema.validate(json.loads(json.dumps(json_of(message), allow_nan=False)), schema)


@given(REQUESTS)
def test_what_goes_out_comes_back_and_fits_its_schema(message: pb.GradeBatchRequest) -> None:
    sent = json.loads(json.dumps(json_of(message)))
    assert message_from_json(pb.GradeBatchRequest, sent) == message
    holds(message, written=False)


def test_words_seconds_maps_and_errors_are_plain() -> None:
    grade = pb.Grade(
        criteria=[
            {"mode": pb.MODE_WEIGHTED, "repeats": [{"weights": {"probabilities": {4: 0.5}}}]}
        ],
        stage_times=[{"stage": "judge", "duration": Duration(seconds=1, nanos=250_000_000)}],
    )
    status = status_of(Overloaded("full", retry_after=0.5))
    for message in (
        pb.GradeBatchResponse(id="a", result=grade),
        pb.GradeBatchResponse(id="b", error=status),
    ):
        holds(message, written=True)
    found = json_of(grade)
    (criterion,) = found["criteria"]
    assert criterion["mode"] == "weighted"
    assert criterion["repeats"][0]["weights"]["probabilities"] == {"4": 0.5}
    assert "mean" not in criterion
    assert criterion["lost_repeats"] == 0
    assert found["stage_times"] == [{"stage": "judge", "duration": 1.25}]
    error = json_of(pb.GradeBatchResponse(id="b", error=status))["error"]
    assert error == {
        "status": "RESOURCE_EXHAUSTED",
        "reason": "OVERLOADED",
        "message": "full",
        "retry_after": 0.5,
    }


@pytest.mark.parametrize(
    ("value", "field", "said"),
    [
        ({"scale": {"x": "a"}}, "scale.x", "is 'x', not a number"),
        ({"scale": {"-1": "a"}}, "scale.-1", "not a number"),
        ({"scale": {"1": 2}}, "scale.1", "is 2, not a text"),
        ({"scale": []}, "scale", "is [], not an object"),
        ({"seed": 1.5}, "seed", "a whole number"),
        ({"seed": 2**64}, "seed", "from 0 to 18446744073709551615"),
        ({"seed": True}, "seed", "is True, not a number"),
        ({"seed": 10**400}, "seed", "a whole number"),
        ({"criterion": None}, "criterion", "is null"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(value, field: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        message_from_json(pb.DraftStepsRequest, value)
    assert caught.value.field == field
    assert said in caught.value.message


def test_a_querys_digits_are_numbers_where_the_field_is_one() -> None:
    kind = pb.ListRubricsRequest.DESCRIPTOR
    found = values_of_texts(kind, {"page_size": "12", "page_token": "12", "other": "12"})
    assert found == {"page_size": 12, "page_token": "12", "other": "12"}


def test_whole_numbers_may_be_written_with_a_point() -> None:
    request = message_from_json(pb.DraftStepsRequest, {"seed": 3.0, "scale": {"5": "good"}})
    assert (request.seed, dict(request.scale)) == (3, {5: "good"})
    with pytest.raises(InvalidInput, match="64 bits"):
        message_from_json(pb.GradeRequest, {"temperature": 10**400})
