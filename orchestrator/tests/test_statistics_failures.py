"""How answers fail, by rules; where their words come from."""

from __future__ import annotations

from dataclasses import replace

import pytest
from paper_study import paper_study

from tuneproof.analysis import RULES, against_of, failures_by_cell, splits_of
from tuneproof.analysis.failures import failure_counts, failures_of
from tuneproof.analysis.wording import ItemWords, content_words, names_in
from tuneproof.results import Answer, ItemResult, Retrieved

FACT = "The Alder 12 mast sends with 46 dBm when band seven is active."
GOLD = Retrieved("p1", "d1", FACT, 0.9, gold=True)
NOISE = Retrieved("p2", "d2", "Masts are painted grey in autumn.", 0.5, gold=False)
ITEM = ItemResult(
    "q1",
    "What is the transmit power of Alder 12?",
    {"full": ("The Alder 12 sends with 46 dBm when band seven is active.",), "short": ("46 dBm",)},
    "d1",
    (GOLD, NOISE),
)
GOOD = "The Alder 12 sends with 46 dBm when band seven is active."


def failures(text: str, item: ItemResult = ITEM, finish: str = "stop") -> tuple[str, ...]:
    answer = Answer("c", item.id, text, finish, 1, 1, 0.1, "base", None)
    return failures_of(answer, ItemWords.of(item, "full"))


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        (GOOD, ()),
        ("The passages do not mention the power.", ("refusal",)),
        ("", ("refusal",)),
        ("46 dBm", ("too_short",)),
        ("The Alder 12 sends with 48 dBm when band seven is active.", ("wrong_entity",)),
        # An additional name is no wrong one while the right ones are there.
        ("The Alder 12 sends with 46 dBm, not 48, when band seven is active.", ()),
        (
            "Operators usually configure transmitters through remote consoles every evening.",
            ("ignores_context",),
        ),
    ],
)
def test_each_rule_finds_its_form(text: str, broken: tuple[str, ...]) -> None:
    assert failures(text) == broken


def test_an_answer_at_the_limit_is_cut_off() -> None:
    assert failures(GOOD, finish="length") == ("cut_off",)


def test_a_refusal_is_right_where_the_evidence_was_missed_or_is_not_there() -> None:
    missed = replace(ITEM, retrieved=(NOISE,))
    assert failures("I do not know.", missed) == ()
    assert failures("I do not know.", replace(ITEM, answerable=False)) == ()
    assert failures("I do not know.", replace(missed, gold_known=False)) == ("refusal",)
    # What the passages do not hold cannot be taken from them.
    assert failures("Operators configure transmitters by consoles every day.", missed) == ()


def test_no_answer_breaks_its_own_rule_only() -> None:
    assert failures_of(None, ItemWords.of(ITEM, "full")) == ("no_answer",)
    lost = Answer("c", "q1", "", "", 0, 0, 0.0, "", None, "the engine is gone")
    assert failures_of(lost, ItemWords.of(ITEM, "full")) == ("no_answer",)


def test_without_references_of_the_style_only_rules_without_them_count() -> None:
    bare = replace(ITEM, references={})
    assert failures("46 dBm", bare) == ()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("The capital of France is Paris.", {"france", "paris"}),
        ("Paris", {"paris"}),
        ("London.", {"london"}),
        ("It costs 1,200 euros", {"1200"}),
        ("Masts are painted grey. Towers are not painted.", set()),
        ("band 7 of the LTE net", {"7", "lte"}),
    ],
)
def test_names_are_capitals_inside_sentences_and_numbers(text: str, names: set[str]) -> None:
    assert names_in(text) == names


def test_content_words_leave_out_function_words_and_punctuation() -> None:
    assert content_words("Is the mast, at 2.5 m, not painted?") == {"mast", "2.5", "m", "painted"}


def test_counts_are_the_answers_that_break_a_rule() -> None:
    study = paper_study(items=12, sizes=(200,), seeds=1)
    broken = failures_by_cell(study)
    counts = failure_counts(broken)
    assert set(counts) == {cell.name for cell in study.cells}
    for cell, by_rule in counts.items():
        assert list(by_rule) == [rule.name for rule in RULES]
        for rule, count in by_rule.items():
            assert count == sum(rule in rules for rules in broken[cell].values())
    assert counts["Llama-short-200-s1"]["cut_off"] == 3  # questions 1, 5 and 9
    assert counts["Llama-baseline"] == dict.fromkeys(counts["Llama-baseline"], 0)


def test_splits_pair_each_cell_with_its_baseline_in_each_stratum() -> None:
    study = paper_study(items=60, sizes=(200,), seeds=1)
    against = against_of(study)
    retrieved, missed = splits_of(study, ("accuracy",), against)
    assert (retrieved.stratum, retrieved.items, missed.stratum, missed.items) == (
        "retrieved", 48, "missed", 12,
    )  # fmt: skip
    cells = {one.cell: one for one in retrieved.cells}
    tuned, base = cells["Mistral-short-200-s1"], cells["Mistral-baseline"]
    assert tuned.against == "Mistral-baseline"
    change = tuned.scores["accuracy"]
    assert change.difference == pytest.approx(-0.4, abs=0.05)
    assert change.interval is not None
    assert change.interval.high < 0
    # A quarter of its answers is made of words that no passage has.
    assert base.sources.mean == pytest.approx(1.0)
    assert base.sources.difference is None
    assert tuned.sources.difference is not None
    assert tuned.sources.difference < -0.1
