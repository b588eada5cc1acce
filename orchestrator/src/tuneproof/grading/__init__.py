"""Grades of answers in a file, for whoever has no study.

answers   reads the file, and says what is wrong with it, line by line
results   the file of grades: a line each, kept from one run to the next
running   asks the judge for what is missing
"""

from tuneproof.grading.answers import read_answers
from tuneproof.grading.results import Cost, Results, keys_of
from tuneproof.grading.running import Summary, grade_missing, summary_of

__all__ = [
    "Cost",
    "Results",
    "Summary",
    "grade_missing",
    "keys_of",
    "read_answers",
    "summary_of",
]
