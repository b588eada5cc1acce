"""Rubrics: what is judged, by which scale and steps, and the prompt that asks for it.

One class, one reader of files and one digest, for the judge that scores by a rubric and for the
study that names it.
"""

from tuneproof.rubrics.forms import Reasoning
from tuneproof.rubrics.rubric import (
    FROM_REQUEST,
    FROM_RUBRIC,
    HIGHEST,
    PLACEHOLDER,
    Rubric,
    parse_rubric,
)
from tuneproof.rubrics.shelf import RubricShelf

__all__ = [
    "FROM_REQUEST",
    "FROM_RUBRIC",
    "HIGHEST",
    "PLACEHOLDER",
    "Reasoning",
    "Rubric",
    "RubricShelf",
    "parse_rubric",
]
