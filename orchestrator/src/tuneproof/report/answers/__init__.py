"""Every answer of a study, packed into the page.

items         what rows, filters and open items show, in the order of the list
packing       a list as blocks of the page, its texts by their words
differences   two answers, word by word
"""

from tuneproof.report.answers.items import (
    STRATA_WORDS,
    Answers,
    answers_of,
    difference_of,
    direction_of,
    primary_measures,
    shown_measures,
)

__all__ = [
    "STRATA_WORDS",
    "Answers",
    "answers_of",
    "difference_of",
    "direction_of",
    "primary_measures",
    "shown_measures",
]
