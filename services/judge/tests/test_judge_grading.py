"""Grading: repeats, seeds, means, and the line between unscored and failed."""

import asyncio
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Counter

from tuneproof.rubrics import RubricShelf
from tuneproof.servicekit.errors import InvalidInput, NotFound, Unavailable, WrongState
from tuneproof_judge.endpoint import OpenAIEndpoint
from tuneproof_judge.grade import CriterionGrade, Failure, FailureKind, Grade, Repeat
from tuneproof_judge.grading import Grader
from tuneproof_judge.metrics import GRADES
from tuneproof_judge.prompt import Subject
from tuneproof_judge.reading import seeds
from tuneproof_judge.task import GradeTask

pytestmark = pytest.mark.timeout(30)

Make = Callable[..., OpenAIEndpoint]
SHELF = RubricShelf.load()
SUBJECT = Subject("Which power?", "46 dBm.", ("It is 46 dBm.", "46 dBm."))
ACCURACY = SHELF.get("accuracy@1")


def task(*rubrics: str, subject: Subject = SUBJECT, **more: object) -> GradeTask:
    return GradeTask(subject, rubrics=rubrics, **more)  # type: ignore[arg-type]


async def graded(endpoint: OpenAIEndpoint | None, asked: GradeTask) -> Grade:
    return await Grader(SHELF, *([endpoint] if endpoint else [])).grade(asked)


async def test_the_mean_and_spread_are_those_of_the_sampled_scores(
    fake, endpoint_of: Make, reply
) -> None:
    fake.script = lambda asked: reply.says(f"Reasons: so.\nScore: {1 + asked.body['seed'] % 5}")
    grade = await graded(endpoint_of(), task("accuracy@1", "completeness@1", seed=5))
    assert [each.rubric for each in grade.criteria] == ["accuracy@1", "completeness@1"]
    for each in grade.criteria:
        wanted = [1 + seed % 5 for seed in seeds(5, each.rubric_digest, 10)]
        assert each.scores == wanted
        assert each.mean == pytest.approx(statistics.fmean(wanted))
        assert each.standard_deviation == pytest.approx(statistics.stdev(wanted))
        assert [one.index for one in each.repeats] == list(range(10))
        assert all(one.completion.startswith("Reasons: so.") for one in each.repeats)
    assert grade.judge_model == "fake"
    assert set(grade.seconds) == {"lexical", "judge"}
    usage = grade.usage
    assert (usage.requests, usage.prompt_tokens, usage.cached_tokens) == (20, 2000, 1280)


async def test_every_repeat_has_a_seed_of_its_own_and_the_whole_prompt(
    fake, endpoint_of: Make
) -> None:
    await graded(endpoint_of(), task("accuracy@1", repeats=12, temperature=0.5))
    assert len({asked.body["seed"] for asked in fake.asked}) == 12
    assert len({asked.prompt for asked in fake.asked}) == 1
    assert {asked.body["temperature"] for asked in fake.asked} == {0.5}
    assert "It is 46 dBm." in fake.asked[0].prompt


def counted(counter: Counter, *labels: str) -> float:
    return counter.labels(*labels)._value.get()


async def test_failed_repeats_are_absent_from_the_mean_and_counted_by_kind(
    fake, endpoint_of: Make, reply
) -> None:
    replies = {
        FailureKind.NO_FORM: reply.says("I like it."),
        FailureKind.OUT_OF_RANGE: reply.says("Score: 10"),
        FailureKind.CUT_OFF: reply.says("Reasons: it is\nScore: 1", finish="length"),
        FailureKind.REFUSED: reply.says("", finish="content_filter"),
        FailureKind.ENDPOINT: reply.fails(500),
    }
    order = [*replies.values(), *[reply.says("Score: 4")] * len(replies)]
    by_seed = dict(zip(seeds(0, ACCURACY.digest, len(order)), order, strict=True))
    fake.script = lambda asked: by_seed[asked.body["seed"]]
    grade = await graded(endpoint_of(attempts=1), task("accuracy@1", repeats=len(order)))
    (criterion,) = grade.criteria
    kinds = [one.outcome.kind for one in criterion.repeats if isinstance(one.outcome, Failure)]
    assert kinds == list(replies)
    assert criterion.scores == [4] * 5
    assert criterion.lost_repeats == 5
    assert criterion.mean == 4
    assert criterion.standard_deviation == 0
    assert criterion.repeats[0].completion == "I like it."


async def test_a_refusal_in_words_is_a_refusal(fake, endpoint_of: Make, reply) -> None:
    fake.script = lambda _: reply.says("", refusal="I cannot judge this.")
    (criterion,) = (await graded(endpoint_of(), task("accuracy@1", repeats=1))).criteria
    outcome = criterion.repeats[0].outcome
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.detail) == (FailureKind.REFUSED, "I cannot judge this.")


@pytest.mark.parametrize(("right", "outcome"), [(4, "unscored"), (5, "scored"), (6, "scored")])
async def test_a_grade_needs_at_least_half_of_its_repeats(
    fake, endpoint_of: Make, reply, right: int, outcome: str
) -> None:
    first = set(seeds(0, ACCURACY.digest, right))
    fake.script = lambda asked: reply.says("Score: 4" if asked.body["seed"] in first else "Well")
    before = counted(GRADES, "accuracy@1", outcome)
    (criterion,) = (await graded(endpoint_of(), task("accuracy@1", repeats=10))).criteria
    assert criterion.scores == [4] * right
    assert criterion.lost_repeats == 10 - right
    assert criterion.mean == (4 if outcome == "scored" else None)
    assert criterion.standard_deviation == (0 if outcome == "scored" else None)
    assert counted(GRADES, "accuracy@1", outcome) == before + 1


async def test_no_scored_repeat_is_unscored_and_not_zero(fake, endpoint_of: Make, reply) -> None:
    fake.script = lambda _: reply.says("no form here")
    (criterion,) = (await graded(endpoint_of(), task("accuracy@1"))).criteria
    assert criterion.mean is None
    assert criterion.standard_deviation is None
    assert len(criterion.repeats) == 10


async def test_an_endpoint_that_is_down_fails_the_grade(endpoint_of: Make, closed_url: str) -> None:
    with pytest.raises(Unavailable, match=closed_url) as caught:
        await graded(endpoint_of(url=closed_url), task("accuracy@1"))
    assert caught.value.retry_after is not None


async def test_an_endpoint_that_only_sends_away_fails_the_grade(
    fake, endpoint_of: Make, reply
) -> None:
    fake.script = lambda _: reply.fails(429)
    with pytest.raises(Unavailable, match="429"):
        await graded(endpoint_of(), task("accuracy@1", repeats=2))


async def test_one_repeat_that_was_taken_on_makes_the_others_counted_failures(
    fake, endpoint_of: Make, reply
) -> None:
    first = seeds(0, ACCURACY.digest, 1)[0]
    fake.script = lambda asked: (
        reply.says("Score: 2") if asked.body["seed"] == first else reply.fails(503)
    )
    (criterion,) = (await graded(endpoint_of(attempts=1), task("accuracy@1", repeats=3))).criteria
    assert criterion.scores == [2]
    assert len(criterion.repeats) == 3


async def test_http_500_for_every_repeat_may_be_the_prompts_fault_and_is_counted(
    fake, endpoint_of: Make, reply
) -> None:
    fake.script = lambda _: reply.fails(500)
    (criterion,) = (await graded(endpoint_of(attempts=1), task("accuracy@1", repeats=3))).criteria
    assert criterion.mean is None


async def test_a_wrong_key_fails_the_grade_and_stops_the_other_repeats(
    fake, endpoint_of: Make, reply
) -> None:
    fake.script = lambda _: reply.fails(401)
    with pytest.raises(WrongState, match="API_KEY"):
        await graded(endpoint_of(concurrency=1), task("accuracy@1", repeats=50))
    assert len(fake.asked) < 5


async def test_without_a_model_words_are_scored_and_rubrics_refused() -> None:
    grade = await graded(None, task())
    assert grade.criteria == ()
    assert grade.judge_model == ""
    assert (grade.lexical.exact_match, grade.lexical.token_f1) == (1.0, 1.0)
    with pytest.raises(WrongState, match="--endpoint-url"):
        await graded(None, task("accuracy@1"))


async def test_lexical_scores_alone_ask_no_model(fake, endpoint_of: Make) -> None:
    grade = await graded(endpoint_of(), task())
    assert fake.asked == []
    assert grade.judge_model == ""
    assert grade.usage.requests == 0


async def test_an_empty_answer_is_judged(fake, endpoint_of: Make, reply) -> None:
    fake.script = lambda _: reply.says("Reasons: empty.\nScore: 1")
    asked = task("accuracy@1", subject=Subject("Q", "", ("R",)))
    grade = await graded(endpoint_of(), asked)
    assert grade.criteria[0].mean == 1
    assert grade.lexical.token_f1 == 0


LONG = "x" * 100_001


@pytest.mark.parametrize(
    ("asked", "field", "said"),
    [
        (task(subject=Subject("Q", "A", ())), "references", "at least one"),
        (task(subject=Subject("Q", "A", ("R", " "))), "references", r"references\[1\] is blank"),
        (task(subject=Subject("Q", LONG, ("R",))), "answer", "100,001 characters"),
        (task(subject=Subject(LONG, "A", ("R",))), "question", "100,001 characters"),
        (task(subject=Subject("Q", "A", ("R",) * 101)), "references", "101 texts"),
        (task(subject=Subject("Q", "A", ("R",), ("P",) * 101)), "passages", "101 texts"),
        (task("accuracy@1", "accuracy@1"), "rubrics", "different"),
        (task("accuracy@1", subject=Subject(" ", "A", ("R",))), "question", "accuracy@1 reads it"),
        (task(repeats=0), "repeats", "1 to 100"),
        (task(repeats=101), "repeats", "1 to 100"),
        (task(temperature=2.1), "temperature", "0 to 2"),
        (task(temperature=float("nan")), "temperature", "0 to 2"),
    ],
)
async def test_a_broken_limit_names_its_field(
    endpoint_of: Make, asked: GradeTask, field: str, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        await graded(endpoint_of(), asked)
    assert caught.value.field == field


async def test_an_unknown_rubric_is_not_found(endpoint_of: Make) -> None:
    with pytest.raises(NotFound, match="completeness@1"):
        await graded(endpoint_of(), task("nonsense@1"))


async def test_cancelling_a_grade_drops_its_requests(fake, endpoint_of: Make) -> None:
    async def hang(_):
        await asyncio.Event().wait()

    fake.script = hang
    grading = asyncio.create_task(graded(endpoint_of(), task("accuracy@1", repeats=4)))
    while fake.under_way < 4:
        await asyncio.sleep(0.01)
    grading.cancel()
    await asyncio.gather(grading, return_exceptions=True)
    while fake.under_way:
        await asyncio.sleep(0.01)
    assert fake.left_early == 4


@given(st.integers(0, 2**64 - 1), st.integers(1, 100), st.integers(1, 100))
def test_seeds_are_different_stable_and_31_bits(seed: int, few: int, many: int) -> None:
    found = seeds(seed, "sha256:aa", max(few, many))
    assert len(set(found)) == len(found)
    assert all(0 <= each < 2**31 for each in found)
    assert seeds(seed, "sha256:aa", min(few, many)) == found[: min(few, many)]
    assert seeds(seed, "sha256:bb", len(found)) != found


def test_seeds_do_not_move_between_releases() -> None:
    assert seeds(7, "sha256:aa", 2) == [310079288, 310079289]


@given(st.lists(st.one_of(st.integers(1, 5), st.sampled_from(FailureKind)), max_size=100))
def test_the_statistics_are_those_of_the_scored_repeats(
    outcomes: list[int | FailureKind],
) -> None:
    repeats = [
        Repeat(n, n, each if isinstance(each, int) else Failure(each, "so"))
        for n, each in enumerate(outcomes)
    ]
    grade = CriterionGrade("accuracy@1", "sha256:aa", "accuracy", repeats)
    scored = [each for each in outcomes if isinstance(each, int)]
    assert grade.scores == scored
    assert grade.lost_repeats == len(outcomes) - len(scored)
    assert grade.scored == (0 < len(outcomes) <= 2 * len(scored))
    assert (grade.mean is None) == (not grade.scored)
    assert (grade.standard_deviation is None) == (not grade.scored or len(scored) < 2)
    if grade.scored:
        assert grade.mean == pytest.approx(sum(scored) / len(scored))
