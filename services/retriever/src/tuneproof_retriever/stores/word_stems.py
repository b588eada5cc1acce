"""The words of a text as LanceDB's keyword index has them, for stores that do not stem.

LanceDB 0.40 splits at what is neither letter nor digit, drops words of 40 bytes and more, makes
them lower case, stems them (Snowball's English stemmer), drops stop words, and takes the accents
off Latin letters, in this order. Where another store indexes the same words, both give nearly the
same BM25 scores.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from py_rust_stemmers import SnowballStemmer

from tuneproof_retriever.stop_words import STOP_WORDS

_WORD = re.compile(r"[^\W_]+")
_WORD_BYTES = 40
_LIGATURES = str.maketrans({"\u00df": "ss", "\u00e6": "ae", "\u0153": "oe", "\u00f8": "o"})
_ENGLISH = SnowballStemmer("english")


def word_stems(text: str) -> str:
    """The stems of a text's words in order, between spaces; empty where none is left."""
    # Longer words would fill the cache with text that no index holds.
    words = (word for word in _WORD.findall(text) if len(word.encode()) < _WORD_BYTES)
    stems = map(_stem, words)
    return " ".join(stem for stem in stems if stem)


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    stem: str = _ENGLISH.stem_word(word.lower())
    if stem in STOP_WORDS:
        return ""
    return stem if stem.isascii() else "".join(map(_folded, stem))


def _folded(letter: str) -> str:
    plain = unicodedata.normalize("NFKD", letter.translate(_LIGATURES))
    plain = "".join(part for part in plain if not unicodedata.combining(part))
    return plain if plain.isascii() else letter
