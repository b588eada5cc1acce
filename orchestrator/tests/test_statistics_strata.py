"""Scores by what retrieval gave the prompt, and which answers are refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_statistics_comparisons import answer, study

from tuneproof.analysis import compare, strata_of
from tuneproof.analysis.contrasts import contrasts_of
from tuneproof.analysis.refusals import is_refusal
from tuneproof.analysis.strata import known_by_heart
from tuneproof.gate import Policy, decide
from tuneproof.report import build_report
from tuneproof.results import Retrieved, Training

pytestmark = pytest.mark.timeout(30)

GOLD = Retrieved("p1", "d1", "the evidence", 1.0, gold=True)
NOISE = Retrieved("p2", "d2", "noise", 0.5, gold=False)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Unanswerable",
        "unanswerable.",
        "This question is unanswerable from the passages.",
        "I don't know.",
        "I do not know, but it may be 46 dBm.",
        "I don\N{RIGHT SINGLE QUOTATION MARK}t know.",
        "The passages do not mention the battery voltage.",
        "The provided context doesn't contain this. It is about masts.",
        "The question cannot be answered from the given passages.",
        "I can't find the answer.",
        "It is not stated in the passages.",
        "There is no information about this in the documents.",
    ],
)
def test_refusals(answer):
    assert is_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "46 dBm .",
        "No.",
        "The alloy does not contain lead.",
        "Patients could not find relief with the drug.",
        "It is 46 dBm. The passages do not mention a condition.",
        "The drug is not known to cause harm.",
        "Unknown genes are found by sequencing.",
        "The information is stored on disk.",
    ],
)
def test_answers(answer):
    assert not is_refusal(answer)


def test_each_kind_of_question_has_its_own_means():
    results = study([4.0, 4.0, 2.0, 3.0], [5.0, 3.0, 1.0, None])
    kinds = [
        {"retrieved": (NOISE, GOLD)},
        {"retrieved": (NOISE,)},
        {"retrieved": (NOISE,), "answerable": False, "gold_known": False},
        {"retrieved": (NOISE,), "gold_known": False},
    ]
    items = tuple(replace(item, **kind) for item, kind in zip(results.items, kinds, strict=True))
    answers = tuple(
        replace(each, text="The passages do not say this.")
        if (each.cell, each.item) == ("tuned", "q1")
        else each
        for each in results.answers
    )
    strata = strata_of(replace(results, items=items, answers=answers))
    assert [(each.name, each.items, each.refusal_is_right) for each in strata] == [
        ("retrieved", 1, False),
        ("missed", 1, True),
        ("unanswerable", 1, True),
        ("unknown", 1, False),
    ]
    means = [
        (each.cells["baseline"].means["accuracy"].mean, each.cells["tuned"].means["accuracy"].mean)
        for each in strata
    ]
    assert means == [(4.0, 5.0), (4.0, 3.0), (2.0, 1.0), (3.0, None)]
    assert strata[3].cells["tuned"].means["accuracy"].unscored == 1
    refused = [(each.cells["baseline"].refused, each.cells["tuned"].refused) for each in strata]
    assert refused == [(0, 0), (0, 1), (0, 0), (0, 0)]
    assert all(cell.answered == 1 for each in strata for cell in each.cells.values())


def closed_book(scores, judged=True):
    """A study of a baseline, a tuned cell, and the base model without passages."""
    count = len(scores)
    results = study([3.0] * count, [4.0 if (score or 0.0) >= 4.0 else 2.0 for score in scores])
    cell = replace(results.cells[0], name="by-heart", arm="by-heart", closed_book=True, tuned=False)
    answers = [
        answer("by-heart", item.id, score, judged=judged)
        for item, score in zip(results.items, scores, strict=True)
    ]
    cells = (replace(results.cells[0], tuned=False), *results.cells[1:], cell)
    return replace(results, cells=cells, answers=(*results.answers, *answers))


def test_what_the_base_model_knows_is_told_apart():
    results = closed_book([5.0, 4.0, 3.9, 1.0, None] + [5.0, 1.0] * 20)
    known = known_by_heart(results)[""]
    assert [known.get(f"q{item}") for item in range(5)] == [True, True, False, False, None]
    kinds = {one.name: one for one in strata_of(results)}
    assert (kinds["by_heart"].items, kinds["not_by_heart"].items) == (22, 22)
    assert set(kinds["by_heart"].cells) == {"baseline", "tuned"}
    assert kinds["by_heart"].cells["tuned"].means["accuracy"].mean == 4.0
    assert kinds["not_by_heart"].cells["tuned"].means["accuracy"].mean == 2.0
    (found,) = [one for one in contrasts_of(results) if one.kind == "by_heart"]
    assert (found.name, found.value, found.items) == (
        "tuned: known by heart minus not",
        pytest.approx(2.0),
        44,
    )
    page = build_report(results, compare(results))
    assert "The base model knows the answer without passages" in page
    assert known_by_heart(study([4.0], [5.0])) == {}


def test_without_a_judge_an_answer_that_holds_a_reference_is_known():
    results = closed_book([1.0, 1.0], judged=False)
    answers = [
        replace(one, text="It is a ." if one.item == "q0" else "It is b .")
        if one.cell == "by-heart"
        else one
        for one in results.answers
    ]
    low = [
        replace(one, grade=replace(one.grade, criteria={}, lexical={"token_f1": 0.1}))
        for one in answers
    ]
    results = replace(results, answers=tuple(low), criteria=(), primary=())
    assert known_by_heart(results)[""] == {"q0": True, "q1": False}


def test_the_gate_asks_in_what_is_known_by_heart_too():
    results = closed_book([5.0, 1.0] * 30)
    training = Training("run", "tuned@sha256:0", {}, (), {}, 1, 1.0)
    cells = [replace(one, training=training) if one.tuned else one for one in results.cells]
    policy = Policy(strata=("by_heart", "not_by_heart"), guaranteed=False, severe_loss=None)
    decision = decide(replace(results, cells=tuple(cells)), policy, "tuned")
    passed = {one.name: one.passed for one in decision.checks}
    assert passed["accuracy, by heart: not worse, by judge judge"]
    assert not passed["accuracy, not by heart: not worse, by judge judge"]


def test_a_kind_that_no_question_is_of_is_left_out():
    assert [each.name for each in strata_of(study([4.0] * 3, [5.0] * 3))] == ["missed"]
