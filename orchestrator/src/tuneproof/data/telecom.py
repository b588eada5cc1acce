"""A fictional telecom operator's manual, generated from a seed: the demo's world.

A document is a chapter on one piece of equipment: `facts_per_document` facts, one sentence each.
Retrieval and reading are made hard on purpose: several chapters share a series, others share a
number, every parameter name occurs in many chapters, and within a chapter parameters share words.

The same seed and sizes give the same world, everywhere. Seeds below 1,000 are for evaluation: the
demo model's training does not draw from them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneproof.data.items import Dataset, Document, Item, JudgeForm
from tuneproof.data.telecom_forms import draw_answer, score
from tuneproof.data.telecom_grammar import (
    ASPECTS,
    LARGEST_NUMBER,
    QUANTITIES,
    SERIES,
    Fact,
    draw_entity,
    draw_fact,
    draw_parameter,
)

__all__ = ["World", "generate", "judge_forms", "oracle_context", "score"]

LARGEST_WORLD = len(SERIES) * LARGEST_NUMBER
"""Chapters: one for each piece of equipment that can be named."""
LARGEST_CHAPTER = 100
"""Facts in a chapter: far enough below the 465 parameters that drawing them stays quick."""
CRITERIA = ("accuracy", "completeness")
LEVELS = (1, 2, 3, 4, 5)
_DRAWS = 10
"""Forms drawn for each that is kept: the rarest score is one in thirty."""


@dataclass(frozen=True, slots=True)
class World:
    """The world of a seed, which examines reader and judge (a `KnownWorld`)."""

    seed: int

    def oracle_context(self, dataset: Dataset, item: Item, facts: int) -> list[str]:
        return oracle_context(dataset, item, facts, self.seed)

    def judge_forms(self, count: int) -> list[JudgeForm]:
        return judge_forms(self.seed, count)

    def score(self, reference: str, answer: str) -> Mapping[str, int]:
        return score(reference, answer)


def generate(
    seed: int, documents: int, facts_per_document: int = 6, reworded: float = 0.0
) -> Dataset:
    """The manual of a seed, with one question for each of its facts.

    The items' references are `full`, the fact's sentence, `short`, the sentence without its
    condition, and `exact`, value and unit.

    Args:
        reworded: share of the questions, 0 to 1, in wordings that the demo's model has never seen.
            A larger share rewords those of a smaller one and others; documents stay the same.

    Raises:
        ValueError: fewer than 1 or more than 11,970 documents, 1 to 100 facts not kept, or a
            share outside 0 to 1.
    """
    if not 1 <= documents <= LARGEST_WORLD:
        raise ValueError(f"documents is {documents}; it must be from 1 to {LARGEST_WORLD}")
    if not 1 <= facts_per_document <= LARGEST_CHAPTER:
        raise ValueError(
            f"facts_per_document is {facts_per_document}; it must be from 1 to {LARGEST_CHAPTER}"
        )
    if not 0 <= reworded <= 1:
        raise ValueError(f"reworded is {reworded}; it must be from 0 to 1")
    rng = random.Random(f"telecom world {seed}")  # noqa: S311 - no secret
    chapters = [
        (entity, [draw_fact(rng, entity, name) for name in _parameters(rng, facts_per_document)])
        for entity in _entities(rng, documents)
    ]
    return Dataset(
        name=f"telecom-{seed}",
        documents=tuple(_document(entity, facts) for entity, facts in chapters),
        items=tuple(
            _item(entity, place, fact, seed, reworded)
            for entity, facts in chapters
            for place, fact in enumerate(facts, start=1)
        ),
        synthetic=True,
        notes=(
            "Manual, questions and answers are made by a program: no statement on real models.",
        ),
    )


def judge_forms(seed: int, n: int) -> list[JudgeForm]:
    """Labelled answers to examine a judge with; the labels are those of `score`.

    Every score that the rule can give is that of at least a tenth of them, by each criterion, so
    that a judge cannot do well by leaving the rare ones out.

    Raises:
        ValueError: n is negative.
    """
    if n < 0:
        raise ValueError(f"the number of forms is {n}; it must not be negative")
    rng = random.Random(f"telecom forms {seed}")  # noqa: S311 - no secret
    drawn = [_draw_form(rng, f"telecom-form-{seed}-{index:05d}") for index in range(n * _DRAWS)]
    chosen: dict[str, JudgeForm] = {}
    for criterion in CRITERIA:
        for level in LEVELS:
            right = [form for form in drawn if form.scores[criterion] == level]
            already = sum(form.scores[criterion] == level for form in chosen.values())
            more = [form for form in right if form.id not in chosen][: max(0, n // 10 - already)]
            chosen |= {form.id: form for form in more}
    rest = [form for form in drawn if form.id not in chosen][: n - len(chosen)]
    return sorted([*chosen.values(), *rest], key=lambda form: form.id)


def _draw_form(rng: random.Random, name: str) -> JudgeForm:
    fact = draw_fact(rng, draw_entity(rng), draw_parameter(rng))
    answer = draw_answer(rng, fact)
    return JudgeForm(name, fact.question, fact.sentence, answer, score(fact.sentence, answer))


def oracle_context(dataset: Dataset, item: Item, facts: int, seed: int) -> list[str]:
    """Passages of up to three facts with the item's evidence among `facts` facts of the world.

    The others are the hardest that the world has: the same equipment, the same parameter, the same
    series, the same number; then any. The order is random, by the seed and the item's id.

    Raises:
        ValueError: the item lacks an evidence sentence of the manual, or the world has fewer facts
            than asked for.
    """
    gold = Fact.parse(item.gold_texts[0]) if item.gold_texts else None
    if gold is None or facts < 1:
        raise ValueError(
            f"no context of {facts} facts for item {item.id!r}: it needs an evidence sentence "
            "and at least 1 fact"
        )
    rng = random.Random(f"telecom context {seed} {item.id}")  # noqa: S311 - no secret
    others = [Fact.parse(other.gold_texts[0]) for other in dataset.items if other.id != item.id]
    if len(others) < facts - 1:
        raise ValueError(
            f"data set {dataset.name!r} has {len(others) + 1} facts, fewer than the {facts} "
            "asked for; generate more documents"
        )
    rng.shuffle(others)
    others.sort(key=lambda fact: _likeness(fact, gold), reverse=True)
    near = others[: 2 * (facts - 1)]
    chosen = [gold, *rng.sample(near, facts - 1)]
    rng.shuffle(chosen)
    sentences = [fact.sentence for fact in chosen]
    return [" ".join(sentences[i : i + 3]) for i in range(0, len(sentences), 3)]


def _likeness(fact: Fact, gold: Fact) -> float:
    """How easily a fact is taken for the gold one: 0 to 4."""
    series, number = fact.entity.split(" ")
    gold_series, gold_number = gold.entity.split(" ")
    shared = set(fact.parameter.split(" ")) & set(gold.parameter.split(" "))
    return (series == gold_series) + (number == gold_number) + len(shared)


def _entities(rng: random.Random, count: int) -> list[str]:
    """Names of equipment, drawn so that about two share each number and many each series."""
    numbers = rng.sample(range(1, LARGEST_NUMBER + 1), min(LARGEST_NUMBER, max(1, count // 2)))
    while len(numbers) * len(SERIES) < count:
        numbers.append(len(numbers) + 1)
    names = [(series, number) for series in SERIES for number in numbers]
    return [f"{series} {number}" for series, number in rng.sample(names, count)]


def _parameters(rng: random.Random, count: int) -> list[str]:
    """Different names of parameters, about half of which share a word with another."""
    names: list[str] = []
    while len(names) < count:
        name = draw_parameter(rng)
        if names and rng.random() < 0.5:
            aspect, quantity = rng.choice(names).split(" ")
            name = rng.choice(
                (f"{aspect} {rng.choice(QUANTITIES)}", f"{rng.choice(ASPECTS)} {quantity}")
            )
        if name not in names:
            names.append(name)
    return names


def _document(entity: str, facts: Sequence[Fact]) -> Document:
    return Document(
        id=_slug(entity),
        text=" ".join(fact.sentence for fact in facts),
        title=entity,
        metadata={"series": entity.split(" ", maxsplit=1)[0]},
    )


def _item(entity: str, place: int, fact: Fact, seed: int, reworded: float) -> Item:
    name = f"{_slug(entity)}-{place}"
    rng = random.Random(f"telecom wording {seed} {name}")  # noqa: S311 - no secret
    other = rng.random() < reworded
    return Item(
        id=name,
        question=rng.choice(fact.other_questions) if other else fact.question,
        references={"full": (fact.sentence,), "short": (fact.short,), "exact": (fact.exact,)},
        gold_documents=(_slug(entity),),
        gold_texts=(fact.sentence,),
        cluster=_slug(entity),
    )


def _slug(entity: str) -> str:
    return entity.lower().replace(" ", "-")
