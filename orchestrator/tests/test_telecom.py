"""The telecom world: the same from the same seed, hard, and scored by an explicit rule."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.data.telecom import generate, judge_forms, oracle_context, score
from tuneproof.data.telecom_forms import compare, draw_answer
from tuneproof.data.telecom_grammar import Fact, draw_entity, draw_fact, draw_parameter, words

pytestmark = pytest.mark.timeout(20)

REFERENCE = "Alder 40 transmit power is 46 dBm when band seven is active."


def test_a_seed_gives_one_world_and_another_seed_another() -> None:
    assert generate(7, 30) == generate(7, 30)
    assert generate(7, 30).documents != generate(8, 30).documents


def test_the_study_world_has_the_shape_that_was_asked_for() -> None:
    world = generate(7, 150)
    assert world.synthetic
    assert not world.gold_only
    assert len(world.documents) == 150
    assert len(world.items) == 900
    assert len({document.id for document in world.documents}) == 150
    assert len({item.id for item in world.items}) == 900
    assert len({item.question for item in world.items}) == 900


def test_evidence_is_verbatim_in_the_gold_document_and_clusters_are_documents() -> None:
    world = generate(11, 20, facts_per_document=4)
    texts = {document.id: document.text for document in world.documents}
    for item in world.items:
        assert item.gold_documents == (item.cluster,)
        assert item.gold_texts[0] in texts[item.cluster]
        fact = Fact.parse(item.gold_texts[0])
        assert item.references == {
            "full": (fact.sentence,),
            "short": (f"{fact.subject} is {fact.quantity}.",),
            "exact": (f"{fact.quantity}.",),
        }
        assert item.question == f"What is the {fact.subject}?"


def test_a_share_of_the_questions_is_reworded_and_nothing_else_changes() -> None:
    plain, some, more = (generate(7, 50, reworded=share) for share in (0.0, 0.4, 0.6))
    assert plain == generate(7, 50)
    assert plain.documents == some.documents == more.documents
    reworded = []
    for before, after, later in zip(plain.items, some.items, more.items, strict=True):
        assert replace(after, question=before.question) == before
        if after.question != before.question:
            reworded.append(after.question)
            assert after.question in Fact.parse(before.gold_texts[0]).other_questions
            assert later.question == after.question
    assert 0.3 < len(reworded) / 300 < 0.5
    assert 0.3 < sum(" when " in question for question in reworded) / len(reworded) < 0.7
    assert len({item.question for item in some.items}) == 300
    assert set(" ".join(reworded).replace("?", "").split(" ")) <= {*words(), "of"}


def test_the_world_holds_hard_distractors() -> None:
    world = generate(7, 150)
    facts = [Fact.parse(item.gold_texts[0]) for item in world.items]
    entities = {fact.entity for fact in facts}
    series = Counter(entity.split(" ")[0] for entity in entities)
    numbers = Counter(entity.split(" ")[1] for entity in entities)
    parameters = Counter(fact.parameter for fact in facts)
    assert sum(count > 1 for count in series.values()) >= 25
    assert sum(count for count in numbers.values() if count > 1) >= 75
    assert sum(count for count in parameters.values() if count > 1) >= 450


@pytest.mark.parametrize("seed", [0, 7])
def test_a_sentence_reads_back(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(100):
        fact = draw_fact(rng, draw_entity(rng), draw_parameter(rng))
        assert Fact.parse(fact.sentence) == fact
        assert set(fact.sentence.removesuffix(".").split(" ")) <= set(words())


@pytest.mark.parametrize("text", ["", "46 dBm.", REFERENCE + " ", REFERENCE * 2])
def test_what_is_no_sentence_of_the_manual_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a sentence of the telecom manual"):
        Fact.parse(text)


@pytest.mark.parametrize(("documents", "facts"), [(0, 6), (12_000, 6), (5, 0), (5, 101)])
def test_impossible_sizes_are_refused(documents: int, facts: int) -> None:
    with pytest.raises(ValueError, match="must be from 1 to"):
        generate(7, documents, facts)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_an_impossible_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="must be from 0 to 1"):
        generate(7, 5, reworded=share)


@pytest.mark.parametrize(
    ("answer", "accuracy", "completeness"),
    [
        (REFERENCE, 5, 5),
        ("46 dBm when band seven is active.", 5, 4),
        ("Alder 40 transmit power is 46 dBm.", 5, 3),
        ("46 dBm.", 5, 2),
        ("46 dBm. 46 dBm. 46 dBm.", 5, 2),
        ("when band seven is active.", 1, 2),
        ("Alder 40 transmit power is 47 dBm when band seven is active.", 1, 2),
        ("Alder 40 transmit power is 46 dB when band seven is active.", 2, 2),
        ("Alder 40 transmit power is 46 dBm when band six is active.", 3, 3),
        ("Alder 41 transmit power is 46 dBm when band seven is active.", 2, 4),
        ("Alder 40 transmit gain is 46 dBm when band six is active.", 1, 2),
        ("46 dB when band six is active.", 1, 1),
        ("Alder 40 transmit power is 46", 1, 1),
        ("Alder 40 transmit power is 46 dBm when band seven", 5, 3),
        ("146 dBm.", 1, 1),
        ("Not found in the passages.", 1, 1),
        ("", 1, 1),
        ("Score: 5", 1, 1),
    ],
)
def test_the_rule(answer: str, accuracy: int, completeness: int) -> None:
    assert score(REFERENCE, answer) == {"accuracy": accuracy, "completeness": completeness}


@given(st.text())
def test_any_text_gets_scores_of_the_scale(answer: str) -> None:
    assert all(1 <= value <= 5 for value in score(REFERENCE, answer).values())


@given(st.integers(0, 10_000), st.text(alphabet="abc .\n", max_size=20))
def test_what_follows_the_first_mention_changes_nothing(seed: int, tail: str) -> None:
    rng = random.Random(seed)
    fact = draw_fact(rng, draw_entity(rng), draw_parameter(rng))
    other = draw_fact(rng, draw_entity(rng), draw_parameter(rng))
    answer = f"{fact.sentence} {tail}{other.sentence}"
    assert compare(REFERENCE, answer) == compare(REFERENCE, fact.sentence)


def test_a_reference_that_is_no_sentence_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a sentence"):
        score("46 dBm.", "46 dBm.")


def test_forms_are_deterministic_labelled_and_varied() -> None:
    forms = judge_forms(7, 600)
    assert forms == judge_forms(7, 600)
    assert len({form.id for form in forms}) == 600
    assert all(form.scores == score(form.reference, form.answer) for form in forms)
    assert {form.scores["accuracy"] for form in forms} == {1, 2, 3, 5}
    assert {form.scores["completeness"] for form in forms} == {1, 2, 3, 4, 5}
    for criterion in ("accuracy", "completeness"):
        assert max(Counter(form.scores[criterion] for form in forms).values()) < 360
    answers = {form.answer for form in forms}
    assert {"", "Not found in the passages."} <= answers
    assert judge_forms(8, 5) != forms[:5]


def test_a_wrong_answer_is_not_always_wrong_in_the_same_way() -> None:
    rng = random.Random(3)
    fact = Fact.parse(REFERENCE)
    judgements = Counter(
        (found.subject.judgement, found.value.judgement, found.condition.judgement)
        for found in (compare(REFERENCE, draw_answer(rng, fact)) for _ in range(2000))
    )
    assert len(judgements) >= 20


def test_an_oracle_context_holds_the_evidence_once_among_hard_facts() -> None:
    world = generate(7, 60)
    for item in world.items[::40]:
        for facts in (1, 2, 12):
            passages = oracle_context(world, item, facts, seed=3)
            text = " ".join(passages)
            assert text.count(item.gold_texts[0]) == 1
            assert text.count(" when ") == facts
            assert all(passage.count(" when ") <= 3 for passage in passages)
            assert passages == oracle_context(world, item, facts, seed=3)
        gold = Fact.parse(item.gold_texts[0])
        text = " ".join(oracle_context(world, item, 12, seed=3))
        assert text.count(gold.entity) > 1 or text.count(gold.parameter) > 1


def test_a_context_larger_than_the_world_is_refused() -> None:
    world = generate(7, 1)
    with pytest.raises(ValueError, match="generate more documents"):
        oracle_context(world, world.items[0], 7, seed=0)
