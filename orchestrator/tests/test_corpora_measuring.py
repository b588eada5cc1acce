"""Measures of search against ours, and configurations side by side."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneproof.cli.corpus.chart import chart
from tuneproof.corpora.comparing import Figure, compare
from tuneproof.corpora.measuring import measure
from tuneproof.corpora.topics import Evidence, Place, Topic
from tuneproof.data.evaluation import retrieval_quality
from tuneproof.data.items import Item
from tuneproof.sdk import Passage

pytestmark = pytest.mark.timeout(60)


def topic(name: str, *documents: str, cluster: str = "") -> Topic:
    return Topic(name, "?", tuple(Evidence((Place(d),)) for d in documents), cluster or name)


def passages(*documents: str) -> list[Passage]:
    return [Passage(f"p{n}", d, "text", 0, 4, 1.0) for n, d in enumerate(documents)]


def test_the_measures_of_a_ranking_by_hand():
    topics = [topic("q", "a", "b", "c"), topic("none", "z")]
    found = {"q": passages("x", "a", "a", "b"), "none": []}
    measured = measure(topics, found, [2, 5])
    scores = {name: values["q"] for name, values in measured.scores.items()}
    assert scores["success@2"] == 1.0
    assert scores["recall@2"] == pytest.approx(1 / 3)
    assert scores["recall@5"] == pytest.approx(2 / 3), "a second passage of a document adds nothing"
    assert scores["RR@10"] == 0.5
    assert measured.ceilings["recall@2"]["q"] == pytest.approx(2 / 3)
    assert {values["none"] for values in measured.scores.values()} == {0.0}


def test_graded_evidence_gains_its_grade():
    graded = Topic("q", "?", (Evidence((Place("a"),), 3), Evidence((Place("b"),), 1)), "q")
    best = measure([graded], {"q": passages("a", "b")}, [5]).scores["nDCG@10"]["q"]
    worse = measure([graded], {"q": passages("b", "a")}, [5]).scores["nDCG@10"]["q"]
    assert best == pytest.approx(1.0)
    assert 0.0 < worse < 1.0


names = st.sampled_from("abcdef")


@given(
    st.lists(
        st.tuples(st.lists(names, min_size=1, unique=True), st.lists(names, max_size=10)),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=60, deadline=None)
def test_the_measures_are_those_of_a_study(cases):
    topics = [topic(f"q{n}", *gold) for n, (gold, _) in enumerate(cases)]
    found = {f"q{n}": passages(*ranked) for n, (_, ranked) in enumerate(cases)}
    items = [Item(f"q{n}", "?", {}, tuple(gold), (), "c") for n, (gold, _) in enumerate(cases)]
    measured, ours = measure(topics, found, [5]), retrieval_quality(items, found, k=10)

    def mean(values):
        return sum(values.values()) / len(values)

    assert mean(measured.scores["success@5"]) == pytest.approx(ours.success_at_5)
    assert mean(measured.scores["recall@5"]) == pytest.approx(ours.recall_at_5)
    assert mean(measured.scores["nDCG@10"]) == pytest.approx(ours.ndcg_at_10)
    assert mean(measured.ceilings["recall@5"]) == pytest.approx(ours.recall_ceiling_at_5)


def test_configurations_are_compared_question_by_question():
    topics = [topic(f"q{n}", "a", cluster=f"c{n // 2}") for n in range(60)]
    good = {one.id: passages("a") for one in topics}
    mixed = {one.id: passages("a" if n % 3 else "x") for n, one in enumerate(topics)}
    lacking = {one.id: passages("a") for one in topics[:58]}
    sides = {"good": good, "mixed": mixed, "lacking": lacking}
    found = compare(topics, {name: measure(topics, each, [5]) for name, each in sides.items()})
    assert (found.topics, found.clusters) == (58, 29)
    first, second, third = found.sides
    assert first.figures["success@5"].mean == 1.0
    assert first.figures["success@5"].low < 1.0
    assert first.differences == {}
    difference = second.differences["success@5"]
    assert difference.mean == pytest.approx(-20 / 58)
    assert difference.low < difference.mean < difference.high < 0.0
    assert third.differences["success@5"].mean == 0.0


def test_few_clusters_give_means_without_intervals():
    topics = [topic(f"q{n}", "a") for n in range(3)]
    found = compare(topics, {"x": measure(topics, {t.id: passages("a") for t in topics}, [5])})
    figures = found.sides[0].figures
    assert (figures["success@5"].low, figures["RR@10"].mean) == (None, 1.0)


def test_the_chart_places_point_and_interval():
    title, line, bare = chart([("one", Figure(0.5, 0.4, 0.6)), ("b", Figure(1.0, None, None))], "m")
    assert title.startswith("m  ")
    assert line.startswith("one  ")
    assert line[5 + 20 : 5 + 31] == "\u2500" * 5 + "\u25cf" + "\u2500" * 5
    assert line.endswith("0.500")
    assert bare.count("\u2500") == 0
