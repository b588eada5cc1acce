"""Training examples drawn without end: questions over small worlds, and judge's forms.

Distractors are hard ones: the same equipment's other parameters, the same series with another
number, the same number in another series, the same parameter elsewhere. Passages look like what
retrieval brings: mostly chapters on one piece of equipment, sometimes mixed, sometimes overlapping,
and in a small share of prompts without the fact that is asked for.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import prompts

from tuneproof.data.telecom_forms import draw_answer
from tuneproof.data.telecom_grammar import (
    ABSENT,
    ASPECTS,
    LARGEST_NUMBER,
    QUANTITIES,
    SERIES,
    Fact,
    draw_entity,
    draw_fact,
    draw_parameter,
)

ABSENT_SHARE = 0.06
MIXED_SHARE = 0.35
"""Prompts whose passages mix equipment sentence by sentence."""


@dataclass(frozen=True, slots=True)
class Example:
    """One turn."""

    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class Shape:
    """How much a question's prompt holds."""

    passages: int
    facts: int
    """Per passage, at most."""


def _near_entity(rng: random.Random, entity: str) -> str:
    series, number = entity.split(" ")
    kind = rng.random()
    if kind < 0.5:
        return f"{series} {rng.randint(1, LARGEST_NUMBER)}"
    if kind < 0.7:
        return f"{rng.choice(SERIES)} {number}"
    return draw_entity(rng)


def _near_parameter(rng: random.Random, parameter: str) -> str:
    aspect, quantity = parameter.split(" ")
    kind = rng.random()
    if kind < 0.3:
        return parameter
    if kind < 0.5:
        return f"{aspect} {rng.choice(QUANTITIES)}"
    if kind < 0.7:
        return f"{rng.choice(ASPECTS)} {quantity}"
    return draw_parameter(rng)


def _distractor(rng: random.Random, gold: Fact, entity: str) -> Fact:
    """A fact about the entity that is not about the gold fact's subject."""
    while True:
        parameter = _near_parameter(rng, gold.parameter)
        if f"{entity} {parameter}" != gold.subject:
            return draw_fact(rng, entity, parameter)


def _chapters(rng: random.Random, gold: Fact, shape: Shape) -> list[list[Fact]]:
    passages = [[gold]]
    while len(passages) < shape.passages:
        entity = gold.entity if rng.random() < 0.25 else _near_entity(rng, gold.entity)
        passages.append([_distractor(rng, gold, entity)])
    fewest = max(1, shape.facts - 2)
    for passage in passages:
        target = rng.randint(fewest, shape.facts)
        while len(passage) < target:
            passage.append(_distractor(rng, gold, passage[0].entity))
        rng.shuffle(passage)
    if len(passages) > 1 and rng.random() < 0.1:
        passages[1][-1] = passages[0][0]
    rng.shuffle(passages)
    return passages


def _mixed(rng: random.Random, gold: Fact, shape: Shape) -> list[list[Fact]]:
    facts = [gold]
    while len(facts) < shape.passages * shape.facts:
        entity = gold.entity if rng.random() < 0.3 else _near_entity(rng, gold.entity)
        facts.append(_distractor(rng, gold, entity))
    rng.shuffle(facts)
    return [facts[i : i + shape.facts] for i in range(0, len(facts), shape.facts)]


def question(rng: random.Random, shape: Shape) -> Example:
    """A RAG prompt with the gold fact at any place, or, rarely, without it."""
    gold = draw_fact(rng, draw_entity(rng), draw_parameter(rng))
    build = _mixed if rng.random() < MIXED_SHARE else _chapters
    passages = build(rng, gold, shape)
    answer = gold.sentence
    if rng.random() < ABSENT_SHARE:
        passages = [[fact for fact in passage if fact != gold] for passage in passages]
        passages = [p for p in passages if p] or [[_distractor(rng, gold, gold.entity)]]
        answer = ABSENT
    texts = [" ".join(fact.sentence for fact in passage) for passage in passages]
    return Example(prompts.ask(gold.question, texts), answer)


def form(rng: random.Random, templates: Mapping[str, str]) -> Example:
    """A judge's form for either criterion, on an answer right or wrong."""
    gold = draw_fact(rng, draw_entity(rng), draw_parameter(rng))
    answer = draw_answer(rng, gold)
    criterion = rng.choice(prompts.CRITERIA)
    return Example(
        prompts.judge(templates[criterion], gold.question, gold.sentence, answer),
        prompts.filled_form(criterion, gold.sentence, answer),
    )
