"""Which answers are refusals: by a rule over their words, which is shown and not learnt."""

from __future__ import annotations

import re

_SOURCE = r"(?:passages?|contexts?|texts?|documents?|snippets?|information)"
_NOT = r"(?:not|n['\u2019]t)"
_TELLS = r"(?:contain|mention|provide|say|state|specify|include|answer|give|tell|address)"
RULE = re.compile(
    rf"""
    ^\W*(?:the\ question\ is\ )?(?:unanswerable|not\ answerable|unknown|no\ answer)\b\W*$
    | \bunanswerable\b
    | \b(?:I|we)\ (?:do|does)\ ?{_NOT}\ know\b
    | \b(?:can(?:\ ?not|['\u2019]t)|could\ ?{_NOT})\ (?:(?:be\ )?(?:answer|determin|infer)
      | find\ (?:the\ |an\ |any\ )?(?:answer|information))
    | \b{_SOURCE}\b.{{0,40}}?\b(?:do|does|did)\ ?{_NOT}\ (?:\w+\ )?{_TELLS}
    | \b(?:is|are|was|were)\ ?{_NOT}\ (?:mentioned|stated|specified|provided|given|found|answered)
      .{{0,20}}?\ (?:in|by)\ the\ .{{0,20}}?{_SOURCE}
    | \b(?:insufficient|not\ enough|no)\ (?:relevant\ )?information\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Searched in an answer's first sentence."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s")


def is_refusal(answer: str) -> bool:
    """Whether an answer says that it cannot be given; an empty one does too."""
    first = _SENTENCE_END.split(" ".join(answer.split()), maxsplit=1)[0]
    return not first or RULE.search(first) is not None
