"""What the scores of a study allow one to say, and how surely."""

from tuneproof.analysis.agreement import confusion_matrix, weighted_kappa
from tuneproof.analysis.comparisons import ADJUSTMENT, Comparison, Comparisons, compare
from tuneproof.analysis.intervals import MINIMUM_CLUSTERS, Estimate, Interval
from tuneproof.analysis.outcome import Outcome
from tuneproof.analysis.scores import (
    ANSWER_WORDS,
    Measures,
    Summary,
    answers_by_arm,
    means_by_arm,
    measures_of,
    score_of,
)

__all__ = [
    "ADJUSTMENT",
    "ANSWER_WORDS",
    "MINIMUM_CLUSTERS",
    "Comparison",
    "Comparisons",
    "Estimate",
    "Interval",
    "Measures",
    "Outcome",
    "Summary",
    "answers_by_arm",
    "compare",
    "confusion_matrix",
    "means_by_arm",
    "measures_of",
    "score_of",
    "weighted_kappa",
]
