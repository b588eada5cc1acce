"""Paired differences of one comparison, as arrays: what bounds and anchored verdicts work on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tuneproof.analysis.anchoring import Flags
from tuneproof.analysis.intervals import Codes, Floats
from tuneproof.analysis.scores import answers_by_cell, score_of
from tuneproof.results import Answer, Measure, PrimaryComparison, StudyResults


@dataclass(frozen=True, slots=True)
class Paired:
    """The items of a study, in its order, with the difference of two cells on each."""

    items: tuple[str, ...]
    differences: Floats
    """Shape (n,), in the measure's units; NaN where an answer lacks a score."""
    clusters: Codes
    """Shape (n,)."""
    identical: Flags
    """Shape (n,): both answers are the same text."""

    worst: Floats
    """Shape (n,): unscored answers at their worst for the cell; NaN of a measure without an upper
    end."""

    @property
    def scored(self) -> Flags:
        """Shape (n,): both answers have a score."""
        return np.isfinite(self.differences)


def paired(
    results: StudyResults,
    named: PrimaryComparison,
    scale: Measure,
    answers: Mapping[str, Mapping[str, Answer]] | None = None,
) -> Paired:
    """The differences of a comparison, item by item.

    Args:
        answers: `answers_by_cell`, for a caller with many comparisons.
    """
    answers = answers_by_cell(results) if answers is None else answers
    mine, theirs = answers.get(named.cell, {}), answers.get(named.against, {})
    high = math.nan if scale.high is None else scale.high
    codes: dict[str, int] = {}
    rows = []
    for item in results.items:
        own, other = mine.get(item.id), theirs.get(item.id)
        score, compared = score_of(own, scale.name), score_of(other, scale.name)
        rows.append(
            (
                math.nan if score is None or compared is None else score - compared,
                (scale.low if score is None else score) - (high if compared is None else compared),
                codes.setdefault(item.cluster, len(codes)),
                own is not None and other is not None and own.text == other.text,
            )
        )
    values = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return Paired(
        tuple(item.id for item in results.items),
        differences=values[:, 0],
        clusters=values[:, 2].astype(np.int64),
        identical=values[:, 3].astype(np.bool_),
        worst=values[:, 1],
    )
