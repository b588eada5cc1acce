"""Whether a judge can be believed: its scores beside people's verdicts.

    loading    answers with people's labels: EVOUNA-NQ, NQ301, RAGChecker, your own CSV
       │
    grading    the judge's grades of them, kept in a file so that a killed run goes on
       │
    figures    κ, ρ, τ, pairwise accuracy; by system, by length; beside people and words
       │
    writing    the certificate, the table, the plot
"""

from tuneproof.calibration.figures import Figures, figures_of
from tuneproof.calibration.grading import Asking, grade_set
from tuneproof.calibration.loading import SETS, LabelledAnswer, LabelledPair, LabelledSet, load_set
from tuneproof.calibration.writing import certificate_of, plot, table

__all__ = [
    "SETS",
    "Asking",
    "Figures",
    "LabelledAnswer",
    "LabelledPair",
    "LabelledSet",
    "certificate_of",
    "figures_of",
    "grade_set",
    "load_set",
    "plot",
    "table",
]
