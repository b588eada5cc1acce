"""How well one configuration of search brings the evidence, question by question.

What counts as gold is ours (`data.evaluation`): one passage counts for one piece of evidence and
one piece for one passage, by a maximum matching in order of rank. So each rank brings one further
piece or nothing, and any measure over ranked lists can be taken: the pieces are the relevant
documents of a question, and a passage that brings nothing is an irrelevant one. ir-measures
computes the measures, with trec_eval's code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneproof.corpora.topics import Found, Topic
from tuneproof.data.evaluation import pieces_brought

NDCG, RECIPROCAL_RANK = "nDCG@10", "RR@10"
DEPTH = 10
"""How deep both look."""


@dataclass(frozen=True)
class Measured:
    """The scores of one configuration."""

    scores: Mapping[str, Mapping[str, float]]
    """By measure, then by topic: `success@k`, `recall@k`, `RR@10`, `nDCG@10`."""
    ceilings: Mapping[str, Mapping[str, float]]
    """The most that `recall@k` can be, in the same form: k places for more than k pieces."""


def measure(
    topics: Sequence[Topic], found: Mapping[str, Sequence[Found]], ks: Sequence[int]
) -> Measured:
    """Scores of the topics that were searched and have evidence.

    Args:
        found: passages by topic, best first, at least max(10, *ks) where there are so many.
        ks: depths of success and recall.
    """
    import ir_measures  # noqa: PLC0415 - takes a while

    asked = [topic for topic in topics if topic.id in found and topic.evidence]
    qrels = {
        topic.id: {_name(number): piece.grade for number, piece in enumerate(topic.evidence)}
        for topic in asked
    }
    run = {topic.id: _ranking(topic, found[topic.id]) for topic in asked}
    names = {
        NDCG: ir_measures.nDCG @ DEPTH,
        RECIPROCAL_RANK: ir_measures.RR @ DEPTH,
        **{f"success@{k}": ir_measures.Success @ k for k in ks},
        **{f"recall@{k}": ir_measures.R @ k for k in ks},
    }
    # A topic for which nothing was found is absent from a run, and scores 0.
    scores = {name: dict.fromkeys(qrels, 0.0) for name in names}
    named = {str(each): name for name, each in names.items()}
    for metric in ir_measures.iter_calc(list(names.values()), qrels, run):
        scores[named[str(metric.measure)]][metric.query_id] = float(metric.value)
    ceilings = {
        f"recall@{k}": {id_: min(k, len(pieces)) / len(pieces) for id_, pieces in qrels.items()}
        for k in ks
    }
    return Measured(scores, ceilings)


def _ranking(topic: Topic, passages: Sequence[Found]) -> dict[str, float]:
    """Pieces and nothings with scores that fall by rank."""
    shown = [
        [
            number
            for number, piece in enumerate(topic.evidence)
            if any(place.shown_by(passage) for place in piece.places)
        ]
        for passage in passages
    ]
    names = (
        f"nothing {rank}" if piece is None else _name(piece)
        for rank, piece in enumerate(pieces_brought(shown))
    )
    return {name: float(-rank) for rank, name in enumerate(names)}


def _name(piece: int) -> str:
    return f"piece {piece}"
