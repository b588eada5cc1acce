"""How answers fail, by rules over their words. A rule is shown with its counts; no model judges.

A rule finds a form, not a truth: an answer may break one and be right, or break none and be wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneproof.analysis.refusals import is_refusal
from tuneproof.analysis.scores import answers_by_cell
from tuneproof.analysis.wording import ItemWords, names_in
from tuneproof.results import Answer, StudyResults

SHORT = 0.5
"""An answer with a smaller share of the shortest reference's words is too short."""

GROUNDED = 0.5
"""An answer with a smaller share of words from the passages ignores them."""

FEWEST_WORDS = 2
"""Fewest content words beyond the question's from which such a share is read."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of failure."""

    name: str
    label: str
    text: str
    """When an answer breaks it, in full."""


NO_ANSWER = Rule("no_answer", "No answer", "A step failed, and the cell has no answer.")
REFUSAL = Rule(
    "refusal",
    "Refusal",
    "The first sentence says that no answer can be given, or the answer is empty, although a gold"
    " passage was retrieved or its gold is not known. For missed and unanswerable questions a"
    " refusal is right.",
)
TOO_SHORT = Rule(
    "too_short",
    "Too short",
    "The answer has fewer than half as many words as the shortest reference that it is scored"
    " against, and is no refusal.",
)
WRONG_ENTITY = Rule(
    "wrong_entity",
    "Wrong entity",
    "The answer holds a name or number that neither the question nor any reference has, and lacks"
    " one that each reference has beyond the question. A name is a word with a capital letter"
    " inside a sentence; a number is a word with a digit.",
)
IGNORES_CONTEXT = Rule(
    "ignores_context",
    "Ignores the context",
    "A gold passage was retrieved, but fewer than half of the answer's words stand in any retrieved"
    " passage. Function words and the question's words do not count; at least two others are"
    " needed. A closed-book prompt has no passages, so there it is no mistake.",
)
CUT_OFF = Rule(
    "cut_off", "Cut off", "The answer ended at the limit of tokens, not where the model stops."
)

RULES = (NO_ANSWER, REFUSAL, TOO_SHORT, WRONG_ENTITY, IGNORES_CONTEXT, CUT_OFF)
"""In display order."""


def failures_of(answer: Answer | None, words: ItemWords) -> tuple[str, ...]:
    """Names of the rules that an answer to an item breaks, in the order of `RULES`."""
    if answer is None or not answer.served_by:
        return (NO_ANSWER.name,)
    found = []
    if is_refusal(answer.text):
        if words.item.stratum in ("retrieved", "unknown"):
            found.append(REFUSAL.name)
    else:
        if len(answer.text.split()) < SHORT * words.shortest:
            found.append(TOO_SHORT.name)
        if _has_wrong_entity(answer.text, words):
            found.append(WRONG_ENTITY.name)
        if words.item.stratum == "retrieved" and _ignores(answer.text, words):
            found.append(IGNORES_CONTEXT.name)
    if answer.finish_reason == "length":
        found.append(CUT_OFF.name)
    return tuple(found)


Failures = Mapping[str, Mapping[str, tuple[str, ...]]]
"""The rules that each answer breaks, by cell and item; without answers that break none."""


def failures_by_cell(results: StudyResults, read: Sequence[ItemWords] | None = None) -> Failures:
    """The rules that each answer breaks.

    Args:
        read: the words of the items; None: read here.
    """
    read = ItemWords.of_study(results) if read is None else read
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for cell, answers in answers_by_cell(results).items():
        broken = {words.item.id: failures_of(answers.get(words.item.id), words) for words in read}
        found[cell] = {item: rules for item, rules in broken.items() if rules}
    return found


def failure_counts(failures: Failures) -> Mapping[str, Mapping[str, int]]:
    """How many answers of each cell break each rule."""
    found = {}
    for cell, by_item in failures.items():
        counts = Counter(rule for rules in by_item.values() for rule in rules)
        found[cell] = {rule.name: counts[rule.name] for rule in RULES}
    return found


def _has_wrong_entity(text: str, words: ItemWords) -> bool:
    if not words.wanted_names or not all(words.wanted_names):
        return False
    mine = names_in(text)
    return bool(mine - words.known_names) and all(names - mine for names in words.wanted_names)


def _ignores(text: str, words: ItemWords) -> bool:
    share = words.share_from_passages(text)
    return share is not None and share < GROUNDED and len(words.own_words(text)) >= FEWEST_WORDS
