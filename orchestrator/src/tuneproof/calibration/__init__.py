"""Whether a judge can be believed: its scores beside people's verdicts.

loading    answers with people's labels: EVOUNA-NQ, NQ301, RAGChecker, your own CSV
   │
grading    the judge's grades of them, kept in a file so that a killed run goes on
   │
figures    agreement and order; by system, by length; beside people and words (`words`)
   │
forms      one form for several criteria beside a form for each
   │
running    one calibration, and what it will take
   │
writing    the certificate, the table, the plot
"""

from tuneproof.calibration.figures import Figures, Scale, figures_of
from tuneproof.calibration.grading import Asking
from tuneproof.calibration.loading import SETS, LabelledAnswer, LabelledPair, LabelledSet, load_set
from tuneproof.calibration.running import Found, beside, calibrate, first_of, forecast
from tuneproof.calibration.writing import certificate_of, forms_table, plot, table

__all__ = [
    "SETS",
    "Asking",
    "Figures",
    "Found",
    "LabelledAnswer",
    "LabelledPair",
    "LabelledSet",
    "Scale",
    "beside",
    "calibrate",
    "certificate_of",
    "figures_of",
    "first_of",
    "forecast",
    "forms_table",
    "load_set",
    "plot",
    "table",
]
