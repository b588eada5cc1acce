"""The mode `weighted`: the expectation over the score's probabilities."""

import json
import math
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.rubrics import Rubric, RubricShelf
from tuneproof.servicekit.errors import WrongState
from tuneproof_judge.endpoint import OpenAIEndpoint
from tuneproof_judge.grade import CriterionGrade, Failure, FailureKind, Grade, Weights
from tuneproof_judge.grading import Grader
from tuneproof_judge.prompt import Subject
from tuneproof_judge.task import GradeTask

pytestmark = pytest.mark.timeout(60)

Make = Callable[..., OpenAIEndpoint]
Tokens = Sequence[tuple[str, Mapping[str, float]]]

FIVE = {1: "a", 2: "b", 3: "c", 4: "d", 5: "e"}
TEN = dict.fromkeys(range(11), "x")


def rubric(scale: Mapping[int, str], reasoning: str) -> Rubric:
    return Rubric.model_validate(
        {
            "id": "sense@1",
            "criterion": "sense",
            "description": "Whether it makes sense.",
            "scale": dict(scale),
            "steps": ["Read."],
            "reasoning": reasoning,
            "template": "{{answer}} {{form}}",
        }
    )


def completion(tokens: Tokens, *, prompt_tokens: int = 100, shown: bool = True) -> bytes:
    """A chat completion with the alternatives of each token, its own among them."""
    content = [
        {
            "token": text,
            "logprob": math.log(others[text]),
            "bytes": list(text.encode()),
            "top_logprobs": [
                {"token": each, "logprob": math.log(p), "bytes": list(each.encode())}
                for each, p in others.items()
            ],
        }
        for text, others in tokens
    ]
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": "".join(text for text, _ in tokens)},
        "logprobs": {"content": content} if shown else None,
    }
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(tokens)}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


def sure(*texts: str) -> list[tuple[str, dict[str, float]]]:
    return [(text, {text: 1.0}) for text in texts]


async def graded(endpoint: OpenAIEndpoint, by: Rubric, **more: object) -> CriterionGrade:
    task = GradeTask(Subject("Q", "A", ()), (by.id,), mode="weighted", **more)  # type: ignore[arg-type]
    grade: Grade = await Grader(RubricShelf([by]), endpoint).grade(task)
    (criterion,) = grade.criteria
    assert isinstance(criterion, CriterionGrade)
    return criterion


async def test_the_mean_is_the_expectation_and_what_is_outside_is_told(
    fake, endpoint_of: Make, reply
) -> None:
    seen = {"4": 0.5, " 4": 0.1, "5": 0.2, "2": 0.1, "Well": 0.04, "9": 0.02}
    fake.script = lambda _: reply.Reply(body=completion([*sure("Score", ": "), ("4", seen)]))
    criterion = await graded(endpoint_of(), rubric(FIVE, "none"), repeats=10)
    wanted = (4 * 0.6 + 5 * 0.2 + 2 * 0.1) / 0.9
    assert criterion.mean == pytest.approx(wanted)
    assert criterion.outside == pytest.approx(0.1)
    assert (criterion.mode, criterion.conditional) == ("weighted", False)
    assert criterion.scores == [4]
    (asked,) = fake.asked  # without sampled reasons a second look would be the same
    assert (asked.body["logprobs"], asked.body["top_logprobs"]) == (True, 20)
    assert asked.body["temperature"] == 0


async def test_where_reasons_come_first_it_is_conditional_and_a_mean_over_them(
    fake, endpoint_of: Make, reply
) -> None:
    def script(asked):
        share = 0.9 if asked.body["seed"] % 2 else 0.5
        last = ("5", {"5": share, "4": 1 - share})
        return reply.Reply(body=completion([*sure("Reasons: 4 of 4.", "\n", "Score:"), last]))

    fake.script = script
    criterion = await graded(endpoint_of(), rubric(FIVE, "before"), repeats=8)
    shares = [0.9 if each.seed % 2 else 0.5 for each in criterion.repeats]
    assert criterion.mean == pytest.approx(sum(4 + share for share in shares) / 8)
    assert criterion.conditional
    assert criterion.standard_deviation is not None


async def test_a_score_of_two_tokens_has_its_part_of_the_first(
    fake, endpoint_of: Make, reply
) -> None:
    first = {"1": 0.6, "7": 0.3, "0": 0.1}
    after = {"0": 0.25, "\n": 0.7, ".": 0.05}
    tokens = [*sure("Score:"), ("1", first), ("\n", after), *sure("Reasons")]
    fake.script = lambda _: reply.Reply(body=completion(tokens))
    criterion = await graded(endpoint_of(), rubric(TEN, "after"))
    assert criterion.mean == pytest.approx(10 * 0.15 + 1 * 0.45 + 7 * 0.3)
    assert len(fake.asked) == 1


async def test_the_way_not_taken_is_asked_for(fake, endpoint_of: Make, reply) -> None:
    def script(asked):
        if len(asked.body["messages"]) == 1:
            return reply.Reply(body=completion([*sure("Score:"), ("7", {"7": 0.6, "1": 0.4})]))
        assert asked.body["messages"][1] == {"role": "assistant", "content": "Score:1"}
        assert asked.body["continue_final_message"]
        assert not asked.body["add_generation_prompt"]
        return reply.Reply(body=completion([("0", {"0": 0.75, "</s>": 0.25})], prompt_tokens=102))

    fake.script = script
    criterion = await graded(endpoint_of(), rubric(TEN, "none"))
    assert criterion.mean == pytest.approx(10 * 0.3 + 1 * 0.1 + 7 * 0.6)
    assert criterion.repeats[0].usage.requests == 2


async def test_an_endpoint_that_begins_anew_instead_of_going_on_is_noticed(
    fake, endpoint_of: Make, reply
) -> None:
    fake.script = lambda asked: reply.Reply(
        body=completion([*sure("Score:"), ("7", {"7": 0.6, "1": 0.4})], prompt_tokens=100)
    )
    criterion = await graded(endpoint_of(), rubric(TEN, "none"))
    assert criterion.mean is None
    (failure,) = criterion.repeats[0].failures
    assert "go on" in failure.detail


async def test_an_endpoint_that_refuses_to_go_on_is_told_apart(
    fake, endpoint_of: Make, reply
) -> None:
    fake.script = lambda asked: (
        reply.fails(400, "unknown field continue_final_message")
        if len(asked.body["messages"]) == 2
        else reply.Reply(body=completion([*sure("Score:"), ("7", {"7": 0.6, "1": 0.4})]))
    )
    with pytest.raises(WrongState, match="go on") as caught:
        await graded(endpoint_of(), rubric(TEN, "none"))
    assert caught.value.reason == "NO_CONTINUATION"


async def test_without_probabilities_it_is_refused_and_never_something_else(
    fake, endpoint_of: Make, reply
) -> None:
    for script in (
        lambda _: reply.says("Score: 4"),
        lambda _: reply.fails(400, "This model does not support logprobs"),
    ):
        fake.script = script
        with pytest.raises(WrongState, match="logprobs") as caught:
            await graded(endpoint_of(), rubric(FIVE, "none"))
        assert caught.value.reason == "NO_PROBABILITIES"


async def test_tokens_that_do_not_spell_the_completion_are_a_failure(
    fake, endpoint_of: Make, reply
) -> None:
    body = json.loads(completion(sure("Other", ": ", "4")))
    body["choices"][0]["message"]["content"] = "Score: 4"
    fake.script = lambda _: reply.Reply(body=json.dumps(body).encode())
    criterion = await graded(endpoint_of(), rubric(FIVE, "none"))
    assert criterion.failures == {FailureKind.ENDPOINT: 1}


async def test_a_score_against_the_odds_is_none(fake, endpoint_of: Make, reply) -> None:
    fake.script = lambda _: reply.Reply(
        body=completion([*sure("Score:"), ("4", {"4": 0.3, "the": 0.7})])
    )
    criterion = await graded(endpoint_of(), rubric(FIVE, "none"))
    assert criterion.mean is None
    outcome = criterion.repeats[0].outcome
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.OUT_OF_RANGE


async def test_tokens_of_words_show_no_spaces(fake, endpoint_of: Make, reply) -> None:
    tokens = [*sure("accuracy", "Score:"), ("4", {"4": 0.5, "5": 0.5}), *sure("</s>")]
    body = json.loads(completion(tokens))
    body["choices"][0]["message"]["content"] = "accuracy Score: 4"
    fake.script = lambda _: reply.Reply(body=json.dumps(body).encode())
    criterion = await graded(endpoint_of(), rubric(FIVE, "before"), repeats=1)
    assert criterion.mean == pytest.approx(4.5)


@given(st.dictionaries(st.integers(0, 10), st.floats(0.001, 1.0), min_size=1))
def test_the_expectation_lies_between_the_scores(shares: dict[int, float]) -> None:
    total = sum(shares.values())
    weights = Weights({score: share / total for score, share in shares.items()})
    assert min(shares) - 1e-9 <= weights.expectation <= max(shares) + 1e-9
    assert weights.outside == pytest.approx(0.0, abs=1e-9)
