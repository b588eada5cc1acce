"""What a study found, as values: the one thing that analysis, report and exports read.

It stands at the bottom: every other package may import it, and it imports none of them.
"""

from tuneproof.results.study import (
    Answer,
    Arm,
    CriterionGrade,
    Grade,
    ItemResult,
    JudgeCheck,
    PrimaryComparison,
    ReaderCheck,
    Repeat,
    RetrievalQuality,
    Retrieved,
    StudyResults,
    Training,
)

__all__ = [
    "Answer",
    "Arm",
    "CriterionGrade",
    "Grade",
    "ItemResult",
    "JudgeCheck",
    "PrimaryComparison",
    "ReaderCheck",
    "Repeat",
    "RetrievalQuality",
    "Retrieved",
    "StudyResults",
    "Training",
]
