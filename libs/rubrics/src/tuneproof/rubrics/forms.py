"""The standard forms: how a judge is asked to write its score."""

from __future__ import annotations

from typing import Literal

Reasoning = Literal["none", "before", "after"]

_FORMS: dict[Reasoning, str] = {
    "none": """\
Reply with one line that holds the word Score, a colon and one whole number from {low} to {high},
and with nothing else. Your reply has this form:

Score: <whole number>""",
    "before": """\
Go through the evaluation steps and write down your reasons in a few sentences, without naming a
score in them. Then end with one line that holds the word Score, a colon and one whole number from
{low} to {high}, and nothing after it. Your reply has this form:

Reasons: <what you compared, and what you found>
Score: <whole number>""",
    "after": """\
Begin with one line that holds the word Score, a colon and one whole number from {low} to {high}.
Then go through the evaluation steps and write down your reasons in a few sentences, without
naming a score in them. Your reply has this form:

Score: <whole number>
Reasons: <what you compared, and what you found>""",
}


def standard_form(reasoning: Reasoning, low: int, high: int) -> str:
    """The words that ask for a score from `low` to `high`."""
    return _FORMS[reasoning].format(low=low, high=high)
