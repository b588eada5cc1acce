"""What may have answered a request, and what its text should say."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.loadtest import Probe, Probes, Truth, read_probes
from tuneproof.loadtest.records import Answer, Reply
from tuneproof.servicekit.errors import InvalidInput

pytestmark = pytest.mark.timeout(60)

ONE, TWO = ("short@sha256:" + digit * 64 for digit in "12")


def reply_of(served: str | None, *, sent: float, first: float, text: str = "one one") -> Reply:
    answer = Answer(text, 2, served)
    return Reply("live", "hi", sent, sent, first, first + 1, answer)


def moved() -> Truth:
    truth = Truth(Probes([Probe(ONE, None, re.compile("(one ?)+"))]))
    truth.points("live", ONE)
    truth.moving("live", TWO, 10.0)
    truth.moved("live", 11.0)
    return truth


@pytest.mark.parametrize(
    ("served", "sent", "first", "right"),
    [
        (ONE, 1.0, 2.0, True),
        (TWO, 1.0, 2.0, False),
        (TWO, 9.0, 10.5, True),  # it was resolved after the move was sent
        (ONE, 10.5, 12.0, True),  # before the move was confirmed
        (ONE, 11.5, 12.0, False),
        (TWO, 11.5, 12.0, True),
        ("", 10.5, 10.7, False),
    ],
)
def test_an_alias_means_what_it_pointed_to_between_sending_and_first_token(
    served, sent, first, right
):
    judged = moved().judge(reply_of(served, sent=sent, first=first))
    assert (judged.wrong == "") is right
    assert "digest" in judged.checked


def test_replicas_that_lag_may_answer_as_before_for_so_long():
    truth = Truth(Probes(), lag=5.0)
    truth.points("live", ONE)
    truth.moving("live", TWO, 10.0)
    truth.moved("live", 11.0)
    assert not truth.judge(reply_of(ONE, sent=15.0, first=15.5)).wrong
    assert truth.judge(reply_of(ONE, sent=16.5, first=17.0)).wrong


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=8), st.data())
def test_at_every_moment_an_alias_means_one_adapter_or_the_two_of_a_move(gaps, data):
    truth, now, moves = Truth(Probes()), 0.0, []
    truth.points("live", "r0")
    for number, gap in enumerate(gaps, 1):
        truth.moving("live", f"r{number}", now + gap)
        moves.append((now + gap, now + 1.5 * gap))
        now += 1.5 * gap
        truth.moved("live", now)
    at = data.draw(st.floats(0.0, now + 1.0))
    allowed = truth.allowed("live", at, at)
    started = sum(at >= start for start, _ in moves)
    ended = sum(at > end for _, end in moves)
    assert allowed == {f"r{n}" for n in range(ended, started + 1)}


@pytest.mark.parametrize(
    ("served", "text", "wrong", "checked"),
    [
        (ONE, "one one one", False, ("digest", "text")),
        (ONE, "one two", True, ("digest", "text")),
        (None, "one", False, ("text",)),
        (None, "two", True, ("text",)),
    ],
)
def test_an_answer_is_held_against_what_its_adapter_says(served, text, wrong, checked):
    judged = moved().judge(reply_of(served, sent=1.0, first=2.0, text=text))
    assert bool(judged.wrong) is wrong
    assert judged.checked == checked


def test_a_probe_is_found_by_reference_then_name_then_prompt():
    def said(text):
        return re.compile(text)

    probes = Probes(
        [
            Probe("short", None, said("name")),
            Probe("short", "hi", said("name and prompt")),
            Probe(ONE, None, said("reference")),
            Probe("base", None, said("base")),
        ]
    )
    assert probes.expectation(ONE, "hi") == said("reference")
    assert probes.expectation(TWO, "hi") == said("name and prompt")
    assert probes.expectation(TWO, "ho") == said("name")
    assert probes.expectation("", "hi") == said("base")
    assert probes.expectation("other@sha256:0", "hi") is None
    assert probes.prompts == ("hi",)


def test_every_bad_probe_is_named(tmp_path):
    path = tmp_path / "probes.jsonl"
    good = json.dumps({"adapter": "base", "expect": "x"})
    path.write_text(f'{good}\n{{"adapter": "a"}}\nno\n{{"adapter": "a", "expect": "("}}\n')
    with pytest.raises(InvalidInput) as failed:
        read_probes(path)
    assert [f":{n}:" in failed.value.message for n in (1, 2, 3, 4)] == [False, True, True, True]
    path.write_text(good)
    assert read_probes(path).expectation("", "anything") == re.compile("x", re.DOTALL)
