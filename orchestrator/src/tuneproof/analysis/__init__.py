"""What the scores of a study show, and how surely."""

from tuneproof.analysis.agreement import confusion_matrix, weighted_kappa
from tuneproof.analysis.comparisons import WORD_OVERLAP, Comparison, Comparisons, compare
from tuneproof.analysis.costs import CellCost, costs_by_cell
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
from tuneproof.analysis.strata import CellInStratum, Stratum, strata_of
from tuneproof.analysis.verdict import Verdict, read

__all__ = [
    "WORD_OVERLAP",
    "CellCost",
    "CellInStratum",
    "Comparison",
    "Comparisons",
    "Measures",
    "Repeats",
    "Stratum",
    "Summary",
    "Verdict",
    "answers_by_cell",
    "compare",
    "confusion_matrix",
    "costs_by_cell",
    "means_by_cell",
    "measures_of",
    "read",
    "repeats_by_cell",
    "score_of",
    "strata_of",
    "weighted_kappa",
]
