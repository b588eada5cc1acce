"""What a study found, as values. Every other package may import it; it imports none of them."""

from tuneproof.results.measure import ANSWER_WORDS, LEXICAL, Measure
from tuneproof.results.study import (
    STRATA,
    Answer,
    Cell,
    CriterionGrade,
    Grade,
    ItemResult,
    JudgeCheck,
    Model,
    PrimaryComparison,
    ReaderCheck,
    Repeat,
    RetrievalQuality,
    Retrieved,
    StratumName,
    StudyResults,
    Training,
)

__all__ = [
    "ANSWER_WORDS",
    "LEXICAL",
    "STRATA",
    "Answer",
    "Cell",
    "CriterionGrade",
    "Grade",
    "ItemResult",
    "JudgeCheck",
    "Measure",
    "Model",
    "PrimaryComparison",
    "ReaderCheck",
    "Repeat",
    "RetrievalQuality",
    "Retrieved",
    "StratumName",
    "StudyResults",
    "Training",
]
