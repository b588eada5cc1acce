"""Lexical match: what a judge must beat."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def matches(answer: str, references: Sequence[str]) -> bool:
    """Whether the answer holds a reference, both after SQuAD's normalisation (Rajpurkar et al.
    2016, evaluate-v1.1), anywhere in its text. A reference without letters or digits is nowhere."""
    said = _normal(answer)
    return any(wanted in said for reference in references if (wanted := _normal(reference)))


def _normal(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
