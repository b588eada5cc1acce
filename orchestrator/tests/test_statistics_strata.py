"""Scores by what retrieval gave the prompt, and which answers are refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_statistics_comparisons import study

from tuneproof.analysis import strata_of
from tuneproof.analysis.refusals import is_refusal
from tuneproof.results import Retrieved

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


def test_a_kind_that_no_question_is_of_is_left_out():
    assert [each.name for each in strata_of(study([4.0] * 3, [5.0] * 3))] == ["missed"]
