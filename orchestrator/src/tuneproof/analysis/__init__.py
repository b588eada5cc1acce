"""What the scores of a study show, and how surely."""

from tuneproof.analysis.agreement import confusion_matrix, weighted_kappa
from tuneproof.analysis.comparisons import WORD_OVERLAP, Comparison, Comparisons, compare
from tuneproof.analysis.costs import CellCost, costs_by_cell
from tuneproof.analysis.failures import RULES, Failures, Rule, failure_counts, failures_by_cell
from tuneproof.analysis.recipes import Recipe, SeedScore, against_of, recipes_of
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
from tuneproof.analysis.sources import Change, Split, SplitCell, splits_of
from tuneproof.analysis.strata import CellInStratum, Stratum, strata_of
from tuneproof.analysis.verdict import Verdict, read
from tuneproof.analysis.wording import ItemWords

__all__ = [
    "RULES",
    "WORD_OVERLAP",
    "CellCost",
    "CellInStratum",
    "Change",
    "Comparison",
    "Comparisons",
    "Failures",
    "ItemWords",
    "Measures",
    "Recipe",
    "Repeats",
    "Rule",
    "SeedScore",
    "Split",
    "SplitCell",
    "Stratum",
    "Summary",
    "Verdict",
    "against_of",
    "answers_by_cell",
    "compare",
    "confusion_matrix",
    "costs_by_cell",
    "failure_counts",
    "failures_by_cell",
    "means_by_cell",
    "measures_of",
    "read",
    "recipes_of",
    "repeats_by_cell",
    "score_of",
    "splits_of",
    "strata_of",
    "weighted_kappa",
]
