"""What the scores of a study allow one to say, and how surely."""

from tuneproof.analysis.agreement import confusion_matrix, weighted_kappa
from tuneproof.analysis.comparisons import (
    ADJUSTMENT,
    WORD_OVERLAP,
    Comparison,
    Comparisons,
    compare,
)
from tuneproof.analysis.intervals import MINIMUM_CLUSTERS, Estimate, Interval
from tuneproof.analysis.scores import (
    Measures,
    Repeats,
    Summary,
    answers_by_cell,
    means_by_cell,
    measures_of,
    repeats_by_cell,
    score_of,
)
from tuneproof.analysis.verdict import Reading, Verdict, read

__all__ = [
    "ADJUSTMENT",
    "MINIMUM_CLUSTERS",
    "WORD_OVERLAP",
    "Comparison",
    "Comparisons",
    "Estimate",
    "Interval",
    "Measures",
    "Reading",
    "Repeats",
    "Summary",
    "Verdict",
    "answers_by_cell",
    "compare",
    "confusion_matrix",
    "means_by_cell",
    "measures_of",
    "read",
    "repeats_by_cell",
    "score_of",
    "weighted_kappa",
]
