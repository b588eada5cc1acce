"""Order and fusion of hits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneproof_retriever.corpus import Candidate
from tuneproof_retriever.ranking import best, depth_for, fuse, ranked


def hit(name: str, score: float = 0.0) -> Candidate:
    return Candidate(name, score)


def ids(hits: list[Candidate]) -> list[str]:
    return [each.id for each in hits]


def test_scores_are_the_documented_formula() -> None:
    fused = fuse([hit("a"), hit("b")], [hit("b"), hit("c")], 0.25)
    scores = {each.id: each.score for each in fused}
    assert scores == pytest.approx(
        {"b": 0.25 / 62 + 0.75 / 61, "c": 0.75 / 62, "a": 0.25 / 61}, rel=1e-12
    )
    assert ids(fused) == ["b", "c", "a"]


@given(
    st.permutations("abcdefgh"), st.permutations("abcdefgh"), st.sampled_from([0.0, 0.3, 0.5, 1.0])
)
@settings(deadline=None)
def test_fusion_orders_by_score_then_id_and_alpha_weighs(
    dense: list[str], keyword: list[str], alpha: float
) -> None:
    fused = fuse([hit(name) for name in dense], [hit(name) for name in keyword], alpha)
    keys = [(-each.score, each.id) for each in fused]
    assert keys == sorted(keys)
    if alpha == 1:
        assert ids(fused) == list(dense)
    if alpha == 0:
        assert ids(fused) == list(keyword)


def test_a_list_of_weight_zero_brings_no_results() -> None:
    assert ids(fuse([hit("a")], [hit("b")], 1.0)) == ["a"]
    assert ids(fuse([hit("a")], [hit("b")], 0.0)) == ["b"]


def test_small_k_share_a_depth_and_large_k_get_more() -> None:
    assert {depth_for(k) for k in range(1, 13)} == {50}
    assert depth_for(100) == 400


def test_differences_beyond_six_decimals_are_ties_and_ids_decide() -> None:
    assert ids(ranked([hit("b", 0.5000001), hit("a", 0.5), hit("c", 0.500002)])) == ["c", "a", "b"]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=300), st.integers(1, 60), st.randoms())
@settings(deadline=None)
async def test_ties_at_the_cut_are_decided_by_ids_not_by_the_store(
    scores: list[int], depth: int, random: object
) -> None:
    everything = [hit(f"p{number:03d}", score) for number, score in enumerate(scores)]

    async def fetch(limit: int) -> list[Candidate]:
        shuffled = everything.copy()
        random.shuffle(shuffled)
        return sorted(shuffled, key=lambda each: -each.score)[:limit]

    assert await best(fetch, depth) == ranked(everything)[:depth]


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=300),
    st.integers(1, 60),
    st.integers(1, 60),
    st.randoms(),
)
@settings(deadline=None)
async def test_a_list_that_is_fused_ends_before_a_tie_that_goes_on(
    scores: list[int], depth: int, least: int, random: object
) -> None:
    everything = [hit(f"p{number:03d}", score) for number, score in enumerate(scores)]

    async def fetch(limit: int) -> list[Candidate]:
        shuffled = everything.copy()
        random.shuffle(shuffled)
        return sorted(shuffled, key=lambda each: -each.score)[:limit]

    chosen, whole = await best(fetch, depth, least=least), ranked(everything)
    assert chosen == whole[: len(chosen)]
    if len(chosen) < min(depth, len(whole)):
        assert len(chosen) >= least
        assert whole[len(chosen) - 1].score > whole[len(chosen)].score
        assert whole[depth - 1].score == whole[depth].score
