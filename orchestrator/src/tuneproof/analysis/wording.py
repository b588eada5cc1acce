"""What an answer's words come from: the rules over words that failures and sources are read by."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tuneproof.results import ItemResult, StudyResults

_TOKEN = re.compile(r"[^\W_]+(?:[.,'\u2019-][^\W_]+)*")
_DIGIT = re.compile(r"\d")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")

_FUNCTION_WORDS = """
a about above after again all also although am an and any are as at be because been before being
below between both but by can could did do does doing down during each either few for from further
had has have having he her here hers him his how however i if in into is it its itself just like
may me might more most must my no nor not now of off on once only or other our out over own per same
she should since so some such than that the their them then there these they this those though
through thus to too under until up upon us very was we were what when where whether which while who
whom whose why will with within without would yes yet you your
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""Words that say nothing about what a text is about."""

LONG_SENTENCE = 4
"""From so many words on, the capital letter of a sentence's first word tells nothing."""


def words_of(text: str) -> tuple[str, ...]:
    """Words and numbers in lower case, in order, without the punctuation around them."""
    return tuple(_TOKEN.findall(text.casefold()))


def content_words(text: str) -> frozenset[str]:
    """The different words of a text that are no function words."""
    return frozenset(words_of(text)) - FUNCTION_WORDS


def names_in(text: str) -> frozenset[str]:
    """The names and numbers of a text, in lower case.

    A name has a capital letter or a digit. The first word of a sentence of `LONG_SENTENCE` words
    or more has its capital letter from its place, so it counts only with a digit.
    """
    found: set[str] = set()
    for sentence in _SENTENCE_END.split(text):
        tokens = _TOKEN.findall(sentence)
        for place, token in enumerate(tokens):
            by_place = place == 0 and len(tokens) >= LONG_SENTENCE
            if (token != token.lower() and not by_place) or _DIGIT.search(token):
                found.add(token.replace(",", "").casefold())
    return frozenset(found) - FUNCTION_WORDS


@dataclass(frozen=True, slots=True)
class ItemWords:
    """What an item's answers are compared with, read once for all cells."""

    item: ItemResult
    asked: frozenset[str]
    """Content words of the question."""
    passages: frozenset[str]
    """Content words of the retrieved passages."""
    known_names: frozenset[str]
    """Names of the question and of every reference."""
    wanted_names: tuple[frozenset[str], ...]
    """Of each reference that answers are scored against: its names that the question lacks."""
    shortest: int
    """Words of the shortest of these references; 0 without one."""

    @classmethod
    def of(cls, item: ItemResult, style: str) -> ItemWords:
        """Reads an item.

        Args:
            style: of the references that answers are scored against.
        """
        asked, scored = names_in(item.question), item.references.get(style, ())
        every = [names_in(one) for wordings in item.references.values() for one in wordings]
        return cls(
            item=item,
            asked=content_words(item.question),
            passages=frozenset().union(*(content_words(one.text) for one in item.retrieved)),
            known_names=asked.union(*every),
            wanted_names=tuple(names_in(one) - asked for one in scored),
            shortest=min((len(one.split()) for one in scored), default=0),
        )

    @classmethod
    def of_study(cls, results: StudyResults) -> tuple[ItemWords, ...]:
        """Reads every item."""
        return tuple(cls.of(item, results.reference_style) for item in results.items)

    def own_words(self, answer: str) -> frozenset[str]:
        """The answer's content words that the question lacks."""
        return content_words(answer) - self.asked

    def share_from_passages(self, answer: str) -> float | None:
        """Share of the answer's own words that the passages hold; None where it has none."""
        own = self.own_words(answer)
        return len(own & self.passages) / len(own) if own else None
