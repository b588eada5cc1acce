"""Comparing two answers: both orders, ties, position bias."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.rubrics import RubricShelf
from tuneproof.servicekit.errors import InvalidInput, Unavailable, WrongState
from tuneproof_judge.endpoint import OpenAIEndpoint
from tuneproof_judge.grade import Failure, FailureKind
from tuneproof_judge.grading import Grader
from tuneproof_judge.pairs import PairGrade, PairReading, PairRepeat, read_choice, render_pair
from tuneproof_judge.prompt import Subject
from tuneproof_judge.task import CompareTask

pytestmark = pytest.mark.timeout(60)

Make = Callable[..., OpenAIEndpoint]
SHELF = RubricShelf.load()
ACCURACY = SHELF.get("accuracy@1")
RIGHT = Subject("Which power?", "46 dBm.", ("It is 46 dBm.",))
WRONG = Subject("Which power?", "47 dBm.", ("It is 46 dBm.",))


async def compared(endpoint: OpenAIEndpoint, **more: object) -> PairGrade:
    task = CompareTask(RIGHT, WRONG, ("accuracy@1",), **more)  # type: ignore[arg-type]
    (found,) = (await Grader(SHELF, endpoint).compare(task)).criteria
    return found


def shown_first(asked) -> str:
    return asked.prompt.split("begins -----\n> ", 1)[1].split("\n", 1)[0]


async def test_a_fair_judge_prefers_the_right_answer_in_both_orders(
    fake, endpoint_of: Make, reply
) -> None:
    fake.script = lambda asked: reply.says(
        f"Reasons: 46.\nBetter: {'A' if shown_first(asked) == '46 dBm.' else 'B'}"
    )
    found = await compared(endpoint_of(), repeats=4)
    assert (found.preference, found.position_bias, found.consistency) == (1.0, 0.0, 1.0)
    assert [(one.in_order.choice, one.reversed.choice) for one in found.repeats] == [
        ("first", "first")
    ] * 4
    assert len(fake.asked) == 8
    assert len({asked.body["seed"] for asked in fake.asked}) == 8
    assert len({asked.prompt for asked in fake.asked}) == 2


async def test_a_judge_that_takes_the_first_shows_as_position_bias(
    fake, endpoint_of: Make, reply
) -> None:
    fake.script = lambda _: reply.says("Better: A")
    found = await compared(endpoint_of(), repeats=3)
    assert (found.preference, found.position_bias, found.consistency) == (0.0, 1.0, 0.0)


async def test_ties_count_as_nothing(fake, endpoint_of: Make, reply) -> None:
    fake.script = lambda _: reply.says("Better: tie")
    found = await compared(endpoint_of(), repeats=3)
    assert (found.preference, found.position_bias, found.consistency) == (0.0, 0.0, 1.0)


async def test_a_repeat_without_both_orders_is_lost_after_its_retries(
    fake, endpoint_of: Make, reply
) -> None:
    fake.script = lambda asked: reply.says(
        "Better: A" if shown_first(asked) == "46 dBm." else "I cannot tell."
    )
    found = await compared(endpoint_of(), repeats=2, retries=1)
    assert (found.preference, found.scored_repeats, found.lost_repeats) == (None, 0, 2)
    assert found.failures == {FailureKind.NO_FORM: 4}
    assert (found.position_bias, found.consistency) == (None, None)


async def test_the_prompt_shares_its_beginning_and_reads_what_the_rubric_reads(
    fake, endpoint_of: Make
) -> None:
    one, other = render_pair(ACCURACY, RIGHT, WRONG), render_pair(ACCURACY, WRONG, RIGHT)
    assert one.partition("answer A")[0] == other.partition("answer A")[0]
    assert "It is 46 dBm." in one
    faithful = SHELF.get("faithfulness@1")
    text = render_pair(faithful, Subject("Q", "A", (), ("P1",)), Subject("Q", "B", (), ("P1",)))
    assert "[1] P1" in text
    assert "Reference answer" not in text


async def test_what_cannot_be_compared_is_refused(endpoint_of: Make, closed_url: str) -> None:
    endpoint = endpoint_of()
    with pytest.raises(InvalidInput, match="at least one"):
        await Grader(SHELF, endpoint).compare(CompareTask(RIGHT, WRONG, ()))
    with pytest.raises(WrongState, match="--endpoint-url"):
        await Grader(SHELF).compare(CompareTask(RIGHT, WRONG, ("accuracy@1",)))
    with pytest.raises(WrongState, match="jury"):
        await Grader(SHELF, endpoint, endpoint).compare(CompareTask(RIGHT, WRONG, ("accuracy@1",)))
    with pytest.raises(Unavailable):
        await compared(endpoint_of(url=closed_url), repeats=1)


@pytest.mark.parametrize(
    ("completion", "choice"),
    [
        ("Better: A", "first"),
        ("Reasons: B is longer.\n**Better:** B.", "second"),
        ("Better: tie", "tie"),
        ("better: Answer A", "first"),
        ("**Better: Tie**", "tie"),
        ("Better: [B]", "second"),
    ],
)
def test_a_well_meant_choice_is_read(completion: str, choice: str) -> None:
    assert read_choice(completion, reversed_order=False) == choice
    mirrored = {"first": "second", "second": "first", "tie": "tie"}
    assert read_choice(completion, reversed_order=True) == mirrored[choice]


@pytest.mark.parametrize(
    "completion",
    ["", "A", "Better: A or B", "Better: A\nBetter: B", "Better: C", "Better: a bit", "Score: 5",
     "B is better: A is worse", "Better: A because it is right", "Better: AB"],
)  # fmt: skip
def test_everything_else_is_no_choice(completion: str) -> None:
    outcome = read_choice(completion, reversed_order=False)
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.NO_FORM


CHOICES = st.sampled_from(["first", "second", "tie"])


@given(st.lists(st.tuples(CHOICES, CHOICES), min_size=1, max_size=20))
def test_swapping_the_answers_turns_the_preference_and_keeps_the_bias(
    outcomes: list[tuple[str, str]],
) -> None:
    def grade(pairs: list[tuple[str, str]]) -> PairGrade:
        repeats = [
            PairRepeat(n, PairReading(n, one), PairReading(n, other))
            for n, (one, other) in enumerate(pairs)
        ]
        return PairGrade("accuracy@1", "sha256:aa", "accuracy", repeats)

    swap = {"first": "second", "second": "first", "tie": "tie"}
    found = grade(outcomes)
    turned = grade([(swap[other], swap[one]) for one, other in outcomes])
    assert found.preference is not None
    assert turned.preference == -found.preference
    assert found.position_bias is not None
    assert turned.position_bias is not None
    assert math.isclose(turned.position_bias, found.position_bias)
    assert found.consistency == turned.consistency
