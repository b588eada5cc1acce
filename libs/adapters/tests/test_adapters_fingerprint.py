"""Fingerprints: what is read of an untrusted document, and what counts as the same effect."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.adapters import Fingerprint, compare, fingerprint_of
from tuneproof.adapters.fingerprint import (
    FINGERPRINT,
    Probe,
    Reading,
    Scores,
    mean_difference,
    prompt_of,
    tokens_of,
)
from tuneproof.adapters.likeness import tolerance_of
from tuneproof.servicekit.errors import Corrupted

PROBES = (
    Probe(question="one", prompt=(5, 6), tokens=(7, 8, 9)),
    Probe(question="two", prompt=(5,), tokens=(7, 8, 9)),
)
BASE: Scores = ((-1.0, -2.0, -3.0), (-4.0, -5.0, -6.0))


def moved(scores: Scores, by: float) -> Scores:
    return tuple(tuple(each + by for each in row) for row in scores)


def fingerprint(effect: float = -1.0, precision: str = "float32", **more: Any) -> Fingerprint:
    reading = Reading(precision=precision, base=BASE, adapted=moved(BASE, effect))
    return Fingerprint(**({"probes": PROBES, "readings": (reading,)} | more))


scores = st.lists(st.lists(st.floats(-50, 0), min_size=3, max_size=3), min_size=2, max_size=2).map(
    lambda rows: tuple(tuple(row) for row in rows)
)


@given(scores, scores)
def test_what_was_written_is_read(base: Scores, adapted: Scores) -> None:
    whole = Fingerprint(
        probes=PROBES, readings=(Reading(precision="nf4", base=base, adapted=adapted),)
    )
    again = Fingerprint.parse(whole.to_text())
    assert again.probes == whole.probes
    assert mean_difference(again.trained.base, base) <= 1e-5
    assert mean_difference(again.trained.adapted, adapted) <= 1e-5
    assert Fingerprint.parse(again.to_text()) == again


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"more": 1},
        {"probes": []},
        {"readings": []},
        {"readings": [{"precision": "nf4", "base": [[-1]], "adapted": [[-1]]}]},
        {"readings": [{"precision": "NF 4", "base": BASE, "adapted": BASE}]},
        {"readings": [{"precision": "nf4", "base": moved(BASE, 90.0), "adapted": BASE}]},
        {"probes": [{"question": "x" * 500, "prompt": [1], "tokens": [1, 2, 3]}] * 2},
        {"probes": [{"question": "x", "prompt": [-1], "tokens": [1, 2, 3]}] * 2},
        {"probes": [{"question": "x", "prompt": [1] * 3000, "tokens": [1, 2, 3]}] * 2},
    ],
)
def test_a_damaged_one_is_refused(change: dict[str, Any]) -> None:
    text = json.dumps(json.loads(fingerprint().to_text()) | change)
    with pytest.raises(Corrupted, match="the fingerprint cannot be read"):
        Fingerprint.parse(text)


@pytest.mark.parametrize("text", [7, "", "[", "x" * 70_000, '{"probes": NaN}'])
def test_what_is_none_is_refused(text: object) -> None:
    with pytest.raises(Corrupted, match="the fingerprint"):
        fingerprint_of({FINGERPRINT: text})
    assert fingerprint_of({}) is None


def test_the_same_effect_is_no_problem_whatever_the_base_rounds() -> None:
    found = compare(fingerprint(), moved(BASE, 0.001), moved(BASE, -0.999), "float32")
    assert found.problem == ""
    assert found.effect == pytest.approx(1.0)
    assert "its effect is 1 nat a token" in found.words


@pytest.mark.parametrize(
    ("by_base", "by_adapter", "problem"),
    [
        (0.0, 0.0, "no effect"),
        (0.0, -0.5, "another effect"),
        (0.0, 1.0, "another effect"),
        (-0.5, -1.5, "another base"),
        (float("nan"), -1.0, "not finite"),
    ],
)
def test_what_differs_is_told_apart(by_base: float, by_adapter: float, problem: str) -> None:
    found = compare(fingerprint(), moved(BASE, by_base), moved(BASE, by_adapter), "float32")
    assert problem in found.problem


def test_rounding_is_allowed_where_a_precision_rounds() -> None:
    served = moved(BASE, 0.1), moved(BASE, -0.8)
    assert compare(fingerprint(), *served, "float32").problem
    assert compare(fingerprint(), *served, "bfloat16").problem == ""
    assert compare(fingerprint(precision="nf4"), *served, "float32").problem == ""


@pytest.mark.parametrize("precision", ["nf4", "bfloat16", "float32"])
@pytest.mark.parametrize("served", ["float32", "bfloat16", "float16"])
def test_no_effect_is_told_in_every_precision(precision: str, served: str) -> None:
    found = compare(fingerprint(precision=precision), BASE, moved(BASE, 1e-5), served)
    assert "no effect" in found.problem


def test_an_effect_too_small_to_be_seen_is_served_and_said() -> None:
    found = compare(fingerprint(-0.01), BASE, BASE, "bfloat16")
    assert found.problem == ""
    assert "cannot be told from none in bfloat16" in found.words
    assert "no effect" in compare(fingerprint(-0.01), BASE, BASE, "float32").problem


def test_the_reading_nearest_to_serving_is_compared() -> None:
    unquantised = Reading(precision="float32", base=BASE, adapted=moved(BASE, -1.0))
    trained = Reading(precision="nf4", base=moved(BASE, -2.0), adapted=moved(BASE, -4.0))
    both = fingerprint(readings=(trained, unquantised))
    assert both.trained.precision == "nf4"
    assert compare(both, BASE, moved(BASE, -1.0), "float32").problem == ""
    assert tolerance_of("nf4", "float32").base > tolerance_of("float32", "float32").base


class DatedTokenizer:
    """Of a template that writes today's date, as Llama 3.2's does."""

    chat_template = "x"

    def apply_chat_template(self, turns: Any, *, strftime_now: Any, **_: Any) -> list[int]:
        return [ord(letter) for letter in strftime_now("%d %b %Y") + turns[0]["content"]]

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [0] * add_special_tokens + [ord(letter) for letter in text]


def test_a_template_that_writes_the_date_makes_the_same_prompt_every_day() -> None:
    prompt = prompt_of(DatedTokenizer(), "hi")
    assert bytes(prompt).decode() == "01 Jan 2026hi"


def test_a_question_that_no_template_takes_is_asked_as_it_is() -> None:
    tokenizer = DatedTokenizer()
    tokenizer.apply_chat_template = None  # type: ignore[assignment]
    assert prompt_of(tokenizer, "hi") == [0, ord("h"), ord("i")]
    assert tokens_of(tokenizer, "abc") == [97, 98, 99]
