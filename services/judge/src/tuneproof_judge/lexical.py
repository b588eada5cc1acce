"""Scores by words: exact match, token F1 and ROUGE-L.

Exact match and F1 after the normalisation of SQuAD (Rajpurkar et al. 2016, evaluate-v1.1):
lower case, no punctuation, no articles, single spaces. ROUGE-L (Lin 2004, section 3) with
rouge-score's tokens and Porter stems; its F-measure with equal weights.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Protocol

from tuneproof_judge.grade import LexicalScores

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def score(answer: str, references: Sequence[str]) -> LexicalScores:
    """The best of each score over the references.

    The first call in a process takes seconds more: it imports the stemmer.

    Args:
        references: at least one.
    """
    stems = _stems(answer)
    return LexicalScores(
        exact_match=max(exact_match(answer, reference) for reference in references),
        token_f1=max(token_f1(answer, reference) for reference in references),
        rouge_l=max(_rouge_l(stems, _stems(reference)) for reference in references),
    )


def exact_match(answer: str, reference: str) -> float:
    """1.0 where both are equal after normalisation, else 0.0."""
    return float(normalise(answer) == normalise(reference))


def token_f1(answer: str, reference: str) -> float:
    """F1 of the words as a multiset; without words on one side, 1.0 only if both are empty."""
    got, wanted = normalise(answer).split(), normalise(reference).split()
    if not got or not wanted:
        return float(got == wanted)
    same = sum((Counter(got) & Counter(wanted)).values())
    return 2 * same / (len(got) + len(wanted))


def rouge_l(answer: str, reference: str) -> float:
    """F-measure of the longest common subsequence of stems; 0.0 where one side has none."""
    return _rouge_l(_stems(answer), _stems(reference))


def normalise(text: str) -> str:
    """SQuAD's normalisation."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _rouge_l(got: Sequence[str], wanted: Sequence[str]) -> float:
    if not got or not wanted:
        return 0.0
    return 2 * _common_length(got, wanted) / (len(got) + len(wanted))


def _common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    rouge-score fills a table in Python, which takes minutes for two answers of the longest
    length that the judge accepts. This works on whole rows as big integers (Hyyrö 2004,
    "Bit-parallel LCS-length computation revisited").
    """
    places: dict[str, int] = {}
    for index, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << index
    full = (1 << len(first)) - 1
    row = full
    for token in second:
        matches = row & places.get(token, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(first) - row.bit_count()


class _Tokenizer(Protocol):
    def tokenize(self, text: str) -> list[str]: ...


@cache
def _tokenizer() -> _Tokenizer:
    # rouge-score 0.1.2 imports nltk, which takes seconds: only the first score pays for it.
    from rouge_score.tokenizers import DefaultTokenizer  # noqa: PLC0415

    tokenizer: _Tokenizer = DefaultTokenizer(use_stemmer=True)
    return tokenizer


def _stems(text: str) -> list[str]:
    return _tokenizer().tokenize(text)
