"""What counts as evidence, and how well it was retrieved."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneproof.data import Item
from tuneproof.data.evaluation import is_gold, retrieval_quality

pytestmark = pytest.mark.timeout(30)


@dataclass(frozen=True)
class _Passage:
    document_id: str
    text: str


def _item(*texts: str, documents: tuple[str, ...] = ("d",), name: str = "q") -> Item:
    return Item(name, "?", {"full": ("a",)}, documents, texts, "c")


_EVIDENCE = "the Alder 40 transmit power is 46 dBm when band seven is active"


@pytest.mark.parametrize(
    ("passage", "gold"),
    [
        (f"Before. {_EVIDENCE}. After.", True),
        ("Before. THE Alder 40\ntransmit power is 46 dBm  when band seven is active", True),
        ("the Alder 40 transmit power is 46 dBm", True),
        ("And so on. the Alder 40 transmit power is 46 dBm", True),
        ("is 46 dBm when band seven is active . And so on.", True),
        ("And so on: is 46 dBm when band seven is active . And so on.", False),
        ("dBm when band seven is active and then other things are said at length", False),
        ("the Alder 40 receive power is 46 dBm when band eight is active", False),
        ("the Alder 41 transmit power is 46 dBm when band two is active", False),
        ("band seven is active", False),
        ("", False),
    ],
)
def test_a_passage_is_gold_when_it_shows_the_evidence(passage, gold):
    assert is_gold(passage, "d", _item(_EVIDENCE)) is gold


def test_evidence_of_several_passages_makes_each_gold():
    words = [f"w{n}" for n in range(300)]
    for start in range(0, 300, 60):
        assert is_gold(" ".join(words[start : start + 60]), "d", _item(" ".join(words)))


def test_short_evidence_must_be_there_whole():
    assert is_gold("It is 46 dBm there.", "d", _item("46 dBm"))
    assert not is_gold("It is 46 mW there.", "d", _item("46 dBm"))


def test_only_a_gold_document_holds_evidence():
    assert not is_gold(_EVIDENCE, "other", _item(_EVIDENCE))
    assert is_gold(_EVIDENCE, "anywhere", _item(_EVIDENCE, documents=()))


def test_without_texts_the_document_decides():
    assert is_gold("whatever", "d", _item())
    assert not is_gold("whatever", "e", _item())
    assert not is_gold("whatever", "e", _item(documents=()))


def _found(*texts: str, document: str = "d") -> list[_Passage]:
    return [_Passage(document, text) for text in texts]


def test_one_piece_at_rank_two():
    quality = retrieval_quality([_item("gold one")], {"q": _found("x", "gold one", "y")}, k=3)
    assert quality is not None
    assert (quality.success_at_5, quality.recall_at_5, quality.recall_ceiling_at_5) == (1, 1, 1)
    assert quality.ndcg_at_10 == pytest.approx(1 / math.log2(3))
    assert (quality.k, quality.items, quality.unit) == (3, 1, "passage")


def test_the_ceiling_of_many_pieces():
    pieces = [f"piece number {n}" for n in range(20)]
    quality = retrieval_quality([_item(*pieces)], {"q": _found(*pieces)}, k=20)
    assert quality is not None
    assert quality.recall_at_5 == quality.recall_ceiling_at_5 == 5 / 20
    assert quality.ndcg_at_10 == pytest.approx(1)


def test_success_looks_at_five_and_ndcg_at_ten():
    late = _found(*"abcdefgh", "gold one")
    quality = retrieval_quality([_item("gold one")], {"q": late}, k=10)
    assert quality is not None
    assert (quality.success_at_5, quality.recall_at_5) == (0, 0)
    assert quality.ndcg_at_10 == pytest.approx(1 / math.log2(10))
    too_late = retrieval_quality([_item("gold one")], {"q": [*_found("x", "y"), *late]}, k=11)
    assert too_late is not None
    assert too_late.ndcg_at_10 == 0


def test_one_piece_is_found_once():
    again = _found("gold one", "and gold one again")
    quality = retrieval_quality([_item("gold one", "gold two")], {"q": again}, k=2)
    assert quality is not None
    assert quality.recall_at_5 == 0.5


def test_pieces_are_matched_as_well_as_can_be():
    both_then_first = _found("gold one and gold two", "gold one")
    quality = retrieval_quality([_item("gold one", "gold two")], {"q": both_then_first}, k=2)
    assert quality is not None
    assert quality.recall_at_5 == 1


def test_means_are_over_the_items_that_were_searched():
    items = [_item("gold", name=name) for name in "abc"]
    quality = retrieval_quality(items, {"a": _found("gold"), "b": []}, k=5)
    assert quality is not None
    assert (quality.items, quality.success_at_5) == (2, 0.5)


def test_documents_count_where_texts_are_not_known_of_all():
    items = [_item("gold", name="a"), _item(name="b", documents=("d", "e"))]
    found = {"a": _found("other words"), "b": _found("x", "y")}
    quality = retrieval_quality(items, found, k=5)
    assert quality is not None
    assert quality.unit == "document"
    assert quality.recall_at_5 == pytest.approx((1 + 0.5) / 2)


def test_nothing_known_is_no_quality():
    assert retrieval_quality([_item(documents=())], {"q": _found("x")}, k=5) is None
    assert retrieval_quality([_item("gold")], {}, k=5) is None


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["p0", "p1", "p2", "p3", "p4", "p5", "p6"]), min_size=1, unique=True),
    st.lists(st.lists(st.sampled_from([f"p{n}" for n in range(8)]), max_size=3), max_size=12),
)
def test_no_figure_passes_its_bound(pieces, passages):
    found = {"q": _found(*(" ; ".join(words) for words in passages))}
    quality = retrieval_quality([_item(*pieces)], found, k=12)
    assert quality is not None
    assert 0 <= quality.recall_at_5 <= quality.recall_ceiling_at_5 <= 1
    assert 0 <= quality.ndcg_at_10 <= 1 + 1e-9
    assert quality.success_at_5 == (quality.recall_at_5 > 0)
