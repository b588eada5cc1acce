"""What saves requests: several criteria in one form, and repeats that end once they agree."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.rubrics import RubricShelf
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_judge.endpoint import OpenAIEndpoint
from tuneproof_judge.grade import Failure, FailureKind, Grade
from tuneproof_judge.grading import Grader
from tuneproof_judge.joint import joint_digest, read_joint, render_joint
from tuneproof_judge.prompt import Subject
from tuneproof_judge.task import GradeTask

pytestmark = pytest.mark.timeout(60)

Make = Callable[..., OpenAIEndpoint]
SHELF = RubricShelf.load()
BOTH = (SHELF.get("accuracy@1"), SHELF.get("completeness@1"))
SUBJECT = Subject("Which power?", "46 dBm.", ("It is 46 dBm.",))


async def graded(endpoint: OpenAIEndpoint, *rubrics: str, **more: object) -> Grade:
    names = rubrics or tuple(each.id for each in BOTH)
    return await Grader(SHELF, endpoint).grade(GradeTask(SUBJECT, names, **more))  # type: ignore[arg-type]


async def test_one_reading_scores_all_criteria(fake, endpoint_of: Make, reply) -> None:
    fake.script = lambda _: reply.says("Reasons: so.\naccuracy: 5\ncompleteness: 3")
    grade = await graded(endpoint_of(), joint=True, repeats=4)
    assert [each.mean for each in grade.criteria] == [5.0, 3.0]
    assert [each.scored_repeats for each in grade.criteria] == [4, 4]
    assert len(fake.asked) == grade.usage.requests == 4
    assert fake.asked[0].body["max_tokens"] == sum(each.max_tokens for each in BOTH)
    digests = [each.rubric_digest for each in grade.criteria]
    assert digests == [joint_digest(each, BOTH) for each in BOTH]
    assert not set(digests) & {each.digest for each in BOTH}


async def test_a_form_with_a_bad_score_is_asked_again_as_a_whole(
    fake, endpoint_of: Make, reply
) -> None:
    said = ["accuracy: 5\ncompleteness: 9", "accuracy: 4\ncompleteness: 2"]
    fake.script = lambda _: reply.says(said[min(len(fake.asked), 2) - 1])
    grade = await graded(endpoint_of(), joint=True, repeats=1, retries=1)
    assert [each.mean for each in grade.criteria] == [4.0, 2.0]
    assert [each.failures for each in grade.criteria] == [{FailureKind.OUT_OF_RANGE: 1}] * 2


async def test_only_the_bad_line_is_lost(fake, endpoint_of: Make, reply) -> None:
    fake.script = lambda _: reply.says("accuracy: 5\ncompleteness: 9")
    grade = await graded(endpoint_of(), joint=True, repeats=2)
    assert [each.mean for each in grade.criteria] == [5.0, None]


@pytest.mark.parametrize(
    "completion",
    [
        "accuracy: 5\ncompleteness: 3",
        "Reasons: 4 of 5.\n\n**Accuracy:** 5\n**Completeness:** 3.",
        "- accuracy score: 5\n- completeness score: [3]\n",
        "```\naccuracy: 5\n\ncompleteness: 3\n```",
    ],
)
def test_well_meant_forms_are_read(completion: str) -> None:
    assert read_joint(completion, BOTH) == [5, 3]


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "accuracy: 5",
        "completeness: 3\naccuracy: 5",
        "accuracy: 5\ncompleteness: 3\nThat is all.",
        "accuracy: 1\naccuracy: 5\ncompleteness: 3",
        "The answer says accuracy: 5.\naccuracy: 2\ncompleteness: 3",
        "accuracy: 5 completeness: 3",
        "accuracy: 5 of 5\ncompleteness: 3",
        "Score: 5\nScore: 3",
    ],
)
def test_all_else_is_no_form(completion: str) -> None:
    outcomes = read_joint(completion, BOTH)
    assert all(isinstance(each, Failure) and each.kind is FailureKind.NO_FORM for each in outcomes)


@given(st.text(alphabet="accuracy: 5\ncompleteness3*.", max_size=60))
def test_no_soup_gives_other_scores_than_its_last_lines(soup: str) -> None:
    outcomes = read_joint(soup, BOTH)
    scored = [each for each in outcomes if isinstance(each, int)]
    if scored:
        lines = [line for line in soup.splitlines() if line.strip(" *.")]
        assert str(outcomes[-1]) in lines[-1] or isinstance(outcomes[-1], Failure)


def test_the_joint_prompt_goes_from_rubrics_to_item_to_answer() -> None:
    text = render_joint(BOTH, Subject("QUESTION", "ANSWER", ("REFERENCE",)))
    places = [text.index(each.description.strip()) for each in BOTH]
    places += [text.index(word) for word in ("QUESTION", "REFERENCE", "ANSWER")]
    assert places == sorted(places)
    assert all(step.strip() in text for each in BOTH for step in each.steps)


async def test_repeats_end_once_they_agree(fake, endpoint_of: Make, reply) -> None:
    fake.script = lambda _: reply.says("Score: 4")
    grade = await graded(endpoint_of(), "accuracy@1", repeats=10, settled_after=3)
    assert (len(fake.asked), grade.criteria[0].mean) == (3, 4.0)
    assert grade.criteria[0].scored_repeats == 3


async def test_repeats_go_on_where_they_do_not(fake, endpoint_of: Make, reply) -> None:
    fake.script = lambda _: reply.says(f"Score: {3 + len(fake.asked) % 2}")
    grade = await graded(endpoint_of(), "accuracy@1", repeats=10, settled_after=3)
    assert (len(fake.asked), grade.criteria[0].mean) == (10, 3.5)
    assert [each.index for each in grade.criteria[0].repeats] == list(range(10))


async def test_failures_do_not_agree(fake, endpoint_of: Make, reply) -> None:
    fake.script = lambda _: reply.says("No form")
    await graded(endpoint_of(), "accuracy@1", repeats=5, settled_after=2)
    assert len(fake.asked) == 5


async def test_a_joint_form_settles_as_a_whole(fake, endpoint_of: Make, reply) -> None:
    fake.script = lambda _: reply.says(f"accuracy: 5\ncompleteness: {len(fake.asked) % 2 + 1}")
    await graded(endpoint_of(), joint=True, repeats=6, settled_after=2)
    assert len(fake.asked) == 6


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"settled_after": 1}, "settled_after"),
        ({"settled_after": 101}, "settled_after"),
        ({"joint": True, "mode": "weighted"}, "joint"),
        ({"retries": 6}, "retries"),
        ({"mode": "median"}, "mode"),
    ],
)
async def test_what_does_not_go_together_is_refused(
    endpoint_of: Make, more: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await graded(endpoint_of(), **more)
    assert caught.value.field == field
