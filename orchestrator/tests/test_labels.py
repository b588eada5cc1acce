"""Asking people: the sample, the page without a word on who answered, and what comes back."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from html_page import Page
from judged_pairs import around, judged

from tuneproof.analysis import compare
from tuneproof.analysis.raters import agreements_of
from tuneproof.analysis.support import supports_of
from tuneproof.analysis.verdict import Verdict
from tuneproof.labels import Sample, added, build_page, draw, ratings_of
from tuneproof.report import build_report, report_json, warnings
from tuneproof.results import StudyResults
from tuneproof.rubrics import Rubric
from tuneproof.servicekit.errors import InvalidInput

RUBRIC = Rubric.model_validate(
    {
        "id": "ours-accuracy@1",
        "criterion": "accuracy",
        "description": "Is it right?",
        "scale": {score: f"anchor {score}" for score in range(1, 6)},
        "steps": ["Read it."],
        "template": "{{answer}}",
        "max_tokens": 20,
    }
)


def sheet(sample: Sample, scores, rater: str = "ann") -> dict:
    """What the page of a rater saves: `scores` gives those of cell and of what it is against."""
    labels = []
    for task in sample.tasks:
        mine, theirs = scores(task)
        first, second = (theirs, mine) if task.swapped else (mine, theirs)
        label = {"task": task.id, "criterion": "accuracy", "first": first, "second": second}
        labels.append(label)
    head = {"schema": "tuneproof.labels/1", "study": sample.study, "sample": sample.digest}
    return {**head, "rater": rater, "labels": labels}


@pytest.fixture
def results() -> StudyResults:
    return judged(around(0.4, count=80))


@pytest.fixture
def sample(results) -> Sample:
    return draw(results, pairs=20, repeats=4, seed=3)


def test_the_draw_is_by_chance_kept_and_repeatable(results, sample) -> None:
    first = [task for task in sample.tasks if not task.again]
    assert len({task.item for task in first}) == 20
    assert {task.inclusion for task in sample.tasks} == {20 / 80}
    twice = [task for task in sample.tasks if task.again]
    assert len(twice) == 4
    by_item = {task.item: task for task in first}
    assert all(by_item[task.item].swapped != task.swapped for task in twice)
    assert draw(results, pairs=20, repeats=4, seed=3) == sample
    assert draw(results, pairs=20, repeats=4, seed=4) != sample
    assert Sample.from_json(json.loads(json.dumps(sample.to_json()))) == sample


def test_every_pair_is_drawn_with_its_chance(results) -> None:
    drawn = np.zeros(80)
    for seed in range(200):
        for task in draw(results, pairs=20, repeats=0, seed=seed).tasks:
            drawn[int(task.item[1:])] += 1
    # 200 draws at 1/4: 50 each, with a standard deviation of 6.
    assert drawn.sum() == 4000
    assert np.abs(drawn - 50).max() < 30


def test_identical_answers_are_not_asked_about() -> None:
    results = judged(around(0.4, count=30))
    same = tuple(replace(one, text="the same") for one in results.answers[:40])
    some = replace(results, answers=same + results.answers[40:])
    sample = draw(some, pairs=60, repeats=0, seed=1)
    assert len(sample.tasks) == 10
    assert {task.inclusion for task in sample.tasks} == {1.0}
    with pytest.raises(InvalidInput, match="nothing in made can be labelled"):
        draw(replace(results, primary=()), pairs=2, repeats=0, seed=1)


def test_the_page_hides_who_answered(results, sample) -> None:
    blank = tuple(replace(one, text=one.text[-4:] + one.cell[0]) for one in results.answers)
    text = build_page(replace(results, answers=blank), sample, [RUBRIC])
    assert "tuned" not in text
    assert "baseline" not in text
    page = Page(text)
    assert page.values("src") == []
    assert "default-src 'none'" in page.values("content")[0]


def test_text_of_answers_cannot_leave_its_place(results, sample) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    answers = tuple(replace(one, text=evil + one.text) for one in results.answers)
    assert evil not in build_page(replace(results, answers=answers), sample, [RUBRIC])


def test_scores_come_back_on_their_sides(results, sample) -> None:
    rater, ratings = ratings_of(sheet(sample, lambda task: (2, 4)), sample, results)
    assert rater == "ann"
    assert {(one.cell, one.score, one.score_against) for one in ratings} == {("tuned", 2.0, 4.0)}
    assert sum(one.again for one in ratings) == 4


def _with(sample, **changes) -> dict:
    given = sheet(sample, lambda task: (3, 3))
    given["labels"][0].update(changes)
    return given


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda s: _with(s, task="abc"), "'abc' was not sampled"),
        (lambda s: _with(s, first=6), "6 is not on the scale, points, 1 to 5"),
        (lambda s: _with(s, first=0), "0 is not on the scale"),
        (lambda s: _with(s, first=3.5), "labels.0.first"),
        (lambda s: _with(s, criterion="style"), "'style': is not asked for"),
        (lambda s: {**sheet(s, lambda task: (3, 3)), "sample": "sha256:0"}, "another sample"),
        (lambda s: {**sheet(s, lambda task: (3, 3)), "rater": " "}, "the rater has no name"),
        (lambda s: {**sheet(s, lambda task: (3, 3)), "schema": "x"}, "this is no file of labels"),
        (lambda s: {"labels": []}, "this is no file of labels"),
    ],
)
def test_bad_labels_are_refused_with_their_place(results, sample, spoil, told) -> None:
    with pytest.raises(InvalidInput) as caught:
        ratings_of(spoil(sample), sample, results)
    assert told in caught.value.message


def test_two_labels_of_one_pair(results, sample) -> None:
    given = sheet(sample, lambda task: (3, 3))
    given["labels"].append(given["labels"][0])
    with pytest.raises(InvalidInput, match="has two labels"):
        ratings_of(given, sample, results)


def test_a_later_file_may_only_go_on(results, sample) -> None:
    whole = ratings_of(sheet(sample, lambda task: (3, 3)), sample, results)[1]
    assert added(whole[:5], whole) == whole
    with pytest.raises(InvalidInput, match="lacks or changes 5 of those"):
        added(whole[:5], whole[5:])


def test_an_answer_that_changed_since(results, sample) -> None:
    changed = replace(
        results, answers=tuple(replace(one, text=one.text + "!") for one in results.answers)
    )
    with pytest.raises(InvalidInput, match="an answer has changed"):
        ratings_of(sheet(sample, lambda task: (3, 3)), sample, changed)


def labelled(results: StudyResults, scores, raters=("ann",)) -> StudyResults:
    sample = draw(results, pairs=60, repeats=6, seed=1)
    labels = []
    for rater in raters:
        labels += ratings_of(sheet(sample, scores, rater), sample, results)[1]
    return replace(results, labels=tuple(labels))


def test_a_rater_who_likes_the_arm_less_turns_the_verdict() -> None:
    """By the judge the arm is better by .4; people take a point off its answers."""
    rng = np.random.default_rng(2)
    results = judged([float(each) for each in rng.choice([0.0, 0.4, 0.8], 200)])
    unlabelled = compare(results)
    (alone,) = supports_of(results, unlabelled)
    assert alone.comparison.verdict is Verdict.BETTER
    assert alone.anchored is None
    assert alone.tipping == unlabelled.primary[0].interval.low

    found = labelled(results, lambda task: (int(rng.integers(2, 4)), 3))
    comparisons = compare(found)
    (support,) = supports_of(found, comparisons)
    assert support.comparison.verdict is Verdict.BETTER
    assert support.anchored is not None
    assert support.anchored.reading.verdict is Verdict.WORSE
    assert support.anchored.labels == 60
    assert support.tipping is None
    first = warnings(found, comparisons)[0]
    assert first.kind == "caution"
    assert "better by the judge, worse by people on 60 labelled pairs" in first.text
    page = Page(build_report(found, comparisons)).text
    assert "worse, by one person on 60 of 200 pairs" in page
    assert "or more on average by judge judge" in page
    told = report_json(found, comparisons)
    assert told["support"][0]["anchored"]["verdict"] == "worse"
    (agreement,) = told["agreement"]
    bias = {one["group"]: one["bias"] for one in agreement["by_arm"]}
    assert bias["Tuned"] > 0.6
    assert bias["Baseline"] == 0.0
    assert agreement["between_kappa"] is None


def test_unscored_pairs_widen_what_people_said() -> None:
    """A tenth of the pairs could be worth anything."""
    noise = [float(each) for each in np.random.default_rng(3).choice([-1.0, 0.0, 1.0], 100)]
    full = judged(noise, {item: noise[item] for item in range(0, 100, 2)})
    some = judged(noise, {item: noise[item] for item in range(0, 100, 2)}, unscored=range(1, 20, 2))
    (whole,), (less,) = (supports_of(each, compare(each)) for each in (full, some))
    assert less.anchored.interval.low <= 0.9 * whole.anchored.interval.low - 0.1 * 4 + 0.3
    assert less.anchored.interval.low < whole.anchored.interval.low


def test_agreement_of_raters_with_judge_each_other_and_themselves() -> None:
    differences = [float(item % 3 - 1) for item in range(90)]
    results = judged(differences)

    def agreeing(task) -> tuple[int, int]:
        return 3 + int(differences[int(task.item[1:])]), 3

    (one,) = agreements_of(labelled(results, agreeing, ("ann", "bob")))
    assert (one.judge_kappa, one.between_kappa, one.self_kappa) == (1.0, 1.0, 1.0)
    assert (one.raters, one.answers) == (2, 120)
    assert {each.group for each in one.by_length} <= {"short", "middle", "long"}
    assert agreements_of(results) == ()
