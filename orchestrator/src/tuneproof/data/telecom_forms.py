"""Answers to the manual's questions, right and wrong ones, and the rule that scores them.

The rule reads three parts out of an answer, whatever else it contains: the subject, the value with
its unit, and the condition, each at its first mention. `compare` sets them against the reference.

Accuracy, "is what the answer says true?": 5 at first; minus 3 for another subject, minus 2 for
another condition; at most 2 with another unit; 1 with another number or without a value; never
below 1.

Completeness, "how much of the reference does the answer say?": 5 value, condition and subject;
4 value and condition; 3 value and subject; 2 value alone, or the condition without the value;
1 neither value nor condition.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tuneproof.data.telecom_grammar import (
    ABSENT,
    ASPECTS,
    LARGEST_NUMBER,
    ORDINALS,
    PLACES,
    QUANTITIES,
    SERIES,
    STATES,
    UNITS,
    Fact,
    draw_condition,
    draw_entity,
    draw_fact,
    draw_parameter,
    words,
)

SAME, DIFFERENT, MISSING = "same", "different", "missing"


def _any(options: tuple[str, ...]) -> str:
    return "(?:" + "|".join(sorted(options, key=len, reverse=True)) + ")"


_SUBJECT = re.compile(rf"\b{_any(SERIES)} [0-9]+ {_any(ASPECTS)} {_any(QUANTITIES)}\b")
_QUANTITY = re.compile(rf"\b[0-9]+ {_any(UNITS)}\b")
_CONDITION = re.compile(rf"\b{_any(PLACES)} {_any(ORDINALS)} is {_any(STATES)}\b")


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the reference beside the same part of the answer."""

    expected: str
    stated: str | None
    """As the answer has it, at its first mention; None if the answer lacks it."""

    @property
    def judgement(self) -> str:
        """`same`, `different` or `missing`."""
        if self.stated is None:
            return MISSING
        return SAME if self.stated == self.expected else DIFFERENT


@dataclass(frozen=True, slots=True)
class Comparison:
    """A reference and an answer, part by part."""

    subject: Part
    value: Part
    condition: Part

    @property
    def accuracy(self) -> int:
        """1 to 5 by the rule above."""
        if self.value.stated is None:
            return 1
        number = self.value.expected.split(" ")[0]
        if self.value.stated.split(" ")[0] != number:
            return 1
        score = 5 if self.value.judgement == SAME else 2
        score -= 3 * (self.subject.judgement == DIFFERENT)
        score -= 2 * (self.condition.judgement == DIFFERENT)
        return max(1, score)

    @property
    def completeness(self) -> int:
        """1 to 5 by the rule above."""
        subject, value, condition = (
            part.judgement == SAME for part in (self.subject, self.value, self.condition)
        )
        if value:
            return 2 + 2 * condition + subject
        return 2 if condition else 1


def compare(reference: str, answer: str) -> Comparison:
    """Set an answer, which may be any text, against a reference sentence of the manual.

    Raises:
        ValueError: the reference is not a sentence of the manual.
    """
    fact = Fact.parse(reference)
    found = [pattern.search(answer) for pattern in (_SUBJECT, _QUANTITY, _CONDITION)]
    subject, value, condition = (match and match[0] for match in found)
    return Comparison(
        Part(fact.subject, subject), Part(fact.quantity, value), Part(fact.condition, condition)
    )


def score(reference: str, answer: str) -> Mapping[str, int]:
    """The truth by rule: {"accuracy": 1..5, "completeness": 1..5} for any answer text.

    Raises:
        ValueError: the reference is not a sentence of the manual.
    """
    comparison = compare(reference, answer)
    return {"accuracy": comparison.accuracy, "completeness": comparison.completeness}


def _other_subject(rng: random.Random, fact: Fact) -> Fact:
    series, number = fact.entity.split(" ")
    aspect, quantity = fact.parameter.split(" ")
    return rng.choice(
        (
            replace(fact, entity=f"{series} {rng.randint(1, LARGEST_NUMBER)}"),
            replace(fact, entity=f"{rng.choice(SERIES)} {number}"),
            replace(fact, entity=draw_entity(rng)),
            replace(fact, parameter=f"{rng.choice(ASPECTS)} {quantity}"),
            replace(fact, parameter=f"{aspect} {rng.choice(QUANTITIES)}"),
            replace(fact, parameter=draw_parameter(rng)),
        )
    )


def _other_value(rng: random.Random, fact: Fact) -> Fact:
    number = rng.randint(1, LARGEST_NUMBER)
    kind = rng.random()
    if kind < 0.55:
        return replace(fact, value=number)
    if kind < 0.85:
        return replace(fact, unit=rng.choice(UNITS))
    return replace(fact, value=number, unit=rng.choice(UNITS))


def _other_condition(rng: random.Random, fact: Fact) -> Fact:
    place, ordinal, _, state = fact.condition.split(" ")
    options = (
        f"{rng.choice(PLACES)} {ordinal} is {state}",
        f"{place} {rng.choice(ORDINALS)} is {state}",
        f"{place} {ordinal} is {rng.choice(STATES)}",
        draw_condition(rng),
        draw_condition(rng),
    )
    return replace(fact, condition=rng.choice(options))


def _say(rng: random.Random, fact: Fact) -> str:
    """The fact in full, or with one or two of its parts left out."""
    kind = rng.random()
    if kind < 0.44:
        return fact.sentence
    if kind < 0.64:
        return fact.short
    if kind < 0.82:
        return fact.exact
    if kind < 0.92:
        return f"{fact.quantity} when {fact.condition}."
    return rng.choice((f"{fact.subject}.", f"when {fact.condition}.", f"{fact.value}."))


def _spoil(rng: random.Random, text: str) -> str:
    """What a badly tuned model writes: cut short, repeating itself, losing words, or noise."""
    pieces = text.split(" ")
    kind = rng.randrange(6)
    if kind == 0:
        return " ".join(pieces[: rng.randint(1, len(pieces))])
    if kind == 1:
        return " ".join([text] * rng.randint(2, 3))
    if kind == 2:
        start = rng.randrange(len(pieces))
        return " ".join(pieces + pieces[start:] * rng.randint(1, 2))
    if kind == 3:
        del pieces[rng.randrange(len(pieces))]
        return " ".join(pieces)
    if kind == 4:
        pieces[rng.randrange(len(pieces))] = rng.choice(words())
        return " ".join(pieces)
    return " ".join(rng.choices(words(), k=rng.randint(1, 12)))


def draw_answer(rng: random.Random, fact: Fact) -> str:
    """An answer to the fact's question, right or wrong, as models before and after tuning write.

    The kinds: right; one part changed, or several; parts left out; another fact of the manual;
    not found; empty; spoiled.
    """
    kind = rng.random()
    if kind < 0.04:
        return ABSENT
    if kind < 0.06:
        return ""
    said = fact
    if kind < 0.12:
        said = draw_fact(rng, draw_entity(rng), draw_parameter(rng))
    elif kind < 0.68:
        changes = (_other_subject, _other_value, _other_value, _other_condition)
        for change in rng.sample(changes, k=1 if rng.random() < 0.75 else 2):
            said = change(rng, said)
    text = _say(rng, said)
    return _spoil(rng, text) if rng.random() < 0.16 else text
